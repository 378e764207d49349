"""Writes a model that knows something; inside vLLM's environment: `build_fitted_models.py MODELS FOLDER`.

MODELS is what `build_models.py` wrote. The models there have random weights, so `ragpair doctor` finds, rightly, that
they tell nothing from nothing. This one is what it takes a healthy server to be:

    qwen3-rr   `qwen3-rr-orig`, fitted to the doctor's own questions in the card's prompt until it says yes to each
               one's answer and no to all others. It has learnt them by heart and can do nothing else.
"""

import importlib.util
import sys
from pathlib import Path

import torch
import transformers
from build_models import _save

PAIRS = Path(__file__).parents[3] / "ragpair" / "doctor" / "pairs.py"
# The card's prompt, as in `tests/live/test_contract.py`.
PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a web '
    "search query, retrieve relevant passages that answer the query\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
STEPS = 400
SURE = 0.02  # of the loss: every answer is right by a wide margin


def examples() -> tuple[list[str], torch.Tensor]:
    """Each question with each answer of its language, and whether it is its own."""
    spec = importlib.util.spec_from_file_location("pairs", PAIRS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prompts, right = [], []
    for pairs in module.PAIRS.values():
        for number, (query, _) in enumerate(pairs):
            for other, (_, document) in enumerate(pairs):
                prompts.append(PROMPT.format(query=query, document=document))
                right.append(float(number == other))
    return prompts, torch.tensor(right)


def build_reranker(models: Path, folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(models / "qwen3-rr-orig")
    model = transformers.AutoModelForCausalLM.from_pretrained(models / "qwen3-rr-orig", dtype=torch.float32)
    prompts, right = examples()
    rows = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    ends = torch.tensor([len(row) - 1 for row in rows])
    width = max(map(len, rows))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])  # what follows the end, nothing sees
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    weights = torch.where(right == 1, (right == 0).sum() / (right == 1).sum(), torch.tensor(1.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(STEPS):
        states = model.model(input_ids=padded).last_hidden_state[torch.arange(len(rows)), ends]
        head = model.get_output_embeddings().weight
        logits = states @ (head[yes] - head[no])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, right, weights)
        if loss.item() < SURE:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    else:
        raise RuntimeError(f"not learnt in {STEPS} steps: the loss is still {loss.item():.3f}")
    _save(folder / "qwen3-rr", model, tokenizer)


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    build_reranker(Path(sys.argv[1]), target)
