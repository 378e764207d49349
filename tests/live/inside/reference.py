"""What transformers computes on the CPU in float32; inside vLLM's environment.

Reads `{"kind", "model_dir", "payload"}` as JSON from standard input and writes a JSON list, one entry for each entry of
the payload. The kinds are told by `tests/live/reference.py`, which calls this. Texts run one at a time: no padding,
nothing to mask.
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
    request = json.load(sys.stdin)
    kind, folder, payload = request["kind"], request["model_dir"], request["payload"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.set_num_threads(2)
    with torch.inference_mode():
        if kind in POOL:
            answer = embeddings(folder, tokenizer, payload, POOL[kind])
        elif kind == "pairs":
            answer = pair_logits(folder, tokenizer, payload)
        elif kind == "yes-no":
            answer = yes_no_log_odds(folder, tokenizer, payload)
        else:
            raise ValueError(f"unknown kind {kind!r}")
    json.dump(answer, sys.stdout)


def embeddings(
    folder: str, tokenizer: Any, texts: list[str], pool: Callable[[torch.Tensor], torch.Tensor]
) -> list[list[float]]:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = (pool(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]) for text in texts)
    return [torch.nn.functional.normalize(vector, dim=0).tolist() for vector in vectors]


def pair_logits(folder: str, tokenizer: Any, pairs: list[list[str]]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(**tokenizer(query, text, return_tensors="pt")).logits.item() for query, text in pairs]


def yes_no_log_odds(folder: str, tokenizer: Any, prompts: list[str]) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    answer = []
    for prompt in prompts:
        logits = model(**tokenizer(prompt, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        answer.append((logits[yes] - logits[no]).item())
    return answer


if __name__ == "__main__":
    main()
