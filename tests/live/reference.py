"""What the model's authors' own code would answer: transformers, float32, on the CPU.

It runs in vLLM's environment, as a process of its own (about ten seconds, mostly imports): ask for everything at once.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .engines import python_of

Kind = Literal["embed-cls", "embed-mean", "embed-last", "pairs", "yes-no", "answers"]

SCRIPT = Path(__file__).parent / "inside" / "reference.py"


@dataclass(frozen=True)
class Request:
    """What to compute, with the weights of a Hugging Face folder (not of a GGUF file).

    - `embed-cls`, `embed-mean`, `embed-last`: texts, exactly as the model shall see them -> L2-normalised vectors. The
      tokenizer adds its special tokens.
    - `pairs`: (query, document) -> a cross-encoder's raw logits.
    - `yes-no`: whole prompts, to which nothing is added -> logit(yes) - logit(no) at the last position of a causal LM.
    - `answers`: prompts in pieces, each tokenized by itself, nothing added -> the logits of `answers` at the last
      position.
    """

    kind: Kind
    model_dir: Path
    payload: Sequence[str] | Sequence[Sequence[str]]
    answers: Sequence[str] = ()


def reference(kind: Kind, model_dir: Path, payload: Sequence[str] | Sequence[Sequence[str]]) -> list[Any]:
    """One answer for each entry of the payload; see `Request`."""
    return references([Request(kind, model_dir, payload)])[0]


def references(requests: Sequence[Request]) -> list[list[Any]]:
    """The answers to many requests, in one process."""
    text = json.dumps([vars(request) for request in requests], default=str)
    command = [str(python_of("vllm")), str(SCRIPT)]
    result = subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise RuntimeError(f"the reference failed:\n{result.stderr[-2000:]}")
    return list(json.loads(result.stdout))
