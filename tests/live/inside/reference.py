"""What transformers computes on the CPU in float32; inside vLLM's environment.

Reads a JSON list of `{"kind", "model_dir", "payload", "answers"}` from standard input and writes a JSON list of lists,
one entry for each entry of a payload. The kinds are told by `tests/live/reference.py`, which calls this. Texts run one
at a time: no padding, nothing to mask.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

POOL: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "embed-cls": lambda tokens: tokens[0],
    "embed-mean": lambda tokens: tokens.mean(dim=0),
    "embed-last": lambda tokens: tokens[-1],
}


def main() -> None:
    torch.set_num_threads(1)  # two wait for each other on a busy machine, and take many times longer
    with torch.inference_mode():
        json.dump([answer(**request) for request in json.load(sys.stdin)], sys.stdout)


def answer(kind: str, model_dir: str, payload: list[Any], answers: list[str]) -> list[Any]:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    if kind in POOL:
        return embeddings(model_dir, tokenizer, payload, POOL[kind])
    if kind == "pairs":
        return pair_logits(model_dir, tokenizer, payload)
    if kind == "yes-no":
        pieces = [[prompt] for prompt in payload]
        return [yes - no for yes, no in answer_logits(model_dir, tokenizer, pieces, ["yes", "no"])]
    if kind == "answers":
        return answer_logits(model_dir, tokenizer, payload, answers)
    raise ValueError(f"unknown kind {kind!r}")


def embeddings(
    folder: str, tokenizer: Any, texts: list[str], pool: Callable[[torch.Tensor], torch.Tensor]
) -> list[list[float]]:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = (pool(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]) for text in texts)
    return [torch.nn.functional.normalize(vector, dim=0).tolist() for vector in vectors]


def pair_logits(folder: str, tokenizer: Any, pairs: list[list[str]]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(**tokenizer(query, text, return_tensors="pt")).logits.item() for query, text in pairs]


def answer_logits(folder: str, tokenizer: Any, prompts: list[list[str]], answers: list[str]) -> list[list[float]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = tokenizer.convert_tokens_to_ids(answers)
    result = []
    for prompt in prompts:
        ids = [token for piece in prompt for token in tokenizer(piece, add_special_tokens=False)["input_ids"]]
        logits = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        result.append(logits[tokens].tolist())
    return result


if __name__ == "__main__":
    main()
