"""The servers that the contract runs on: one row each, and how to run a test on them.

    @on("vllm-minilm", "llamacpp-minilm")
    def test_something(served: Server) -> None: ...

Where a row's flags are those of a mistake that people make, the row says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import ragpair

from .engines import Engine
from .models import model
from .servers import Server, serve

StartServer = Callable[[str], Server]  # the fixture `server`


@dataclass(frozen=True)
class Launch:
    """A server to start."""

    engine: Engine
    model: str  # a name that `models.model` knows
    about: str
    flags: tuple[str, ...] = ()


QWEN3_RERANKER = (
    '{"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"], '
    '"is_original_qwen3_reranker": true}'
)
GEMMA_RERANKER = (
    '{"architectures": ["GemmaForSequenceClassification"], "classifier_from_token": ["Yes"], '
    '"method": "no_post_processing"}'
)
MXBAI_RERANKER = (
    '{"architectures": ["Qwen2ForSequenceClassification"], "classifier_from_token": ["0", "1"], '
    '"method": "from_2_way_softmax"}'
)
TEMPLATES = Path(ragpair.__path__[0]) / "templates"
# SGLang's encoders give wrong vectors, or die, without these two.
WHOLE = ("--disable-radix-cache", "--chunked-prefill-size", "-1")

LAUNCHES: dict[str, Launch] = {
    "vllm-minilm": Launch(
        "vllm", "minilm", "an embedder: mean pooling, 384 wide, 256 tokens", ("--max-model-len", "256")
    ),
    "vllm-qwen3-emb": Launch(
        "vllm",
        "qwen3-emb",
        "an embedder: last token pooling, 64 wide, takes `dimensions`",
        ("--runner", "pooling", "--hf-overrides", '{"is_matryoshka": true}'),
    ),
    "vllm-xlmr-rr": Launch("vllm", "xlmr-rr", "a cross-encoder: probabilities"),
    "vllm-bert-ce": Launch("vllm", "bert-ce", "a cross-encoder whose config asks for raw logits"),
    "vllm-qwen3-rr": Launch(
        "vllm",
        "qwen3-rr-orig",
        "Qwen3-Reranker, all overrides, no template: the client owns the prompt",
        ("--runner", "pooling", "--hf-overrides", QWEN3_RERANKER),
    ),
    "vllm-qwen3-rr-fitted": Launch(
        "vllm",
        "fitted/qwen3-rr",
        "Qwen3-Reranker, all overrides, no template, that knows the doctor's questions by heart",
        ("--runner", "pooling", "--hf-overrides", QWEN3_RERANKER),
    ),
    "vllm-qwen3-rr-seqcls": Launch(
        "vllm", "qwen3-rr-seqcls", "Qwen3-Reranker converted to one label, no template", ("--runner", "pooling")
    ),
    "vllm-qwen3-rr-seed": Launch(
        "vllm",
        "qwen3-rr-orig",
        "a mistake: the popular command, without classifier_from_token; healthy, and without rerank routes",
        ("--runner", "pooling", "--hf-overrides", '{"architectures": ["Qwen3ForSequenceClassification"]}'),
    ),
    "vllm-qwen3-rr-numlabels1": Launch(
        "vllm",
        "qwen3-rr-orig",
        "a mistake: one label, but no classifier_from_token; it answers with an uninitialised head",
        (
            *("--runner", "pooling", "--hf-overrides"),
            '{"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}',
        ),
    ),
    "vllm-qwen3-rr-template": Launch(
        "vllm",
        "qwen3-rr-orig",
        "Qwen3-Reranker, all overrides, with our template: the server writes the prompt on its rerank routes",
        (
            *("--runner", "pooling", "--hf-overrides", QWEN3_RERANKER),
            *("--chat-template", str(TEMPLATES / "vllm" / "qwen3-reranker.jinja")),
        ),
    ),
    "sglang-qwen3-rr-template": Launch(
        "sglang",
        "qwen3-rr-orig",
        "Qwen3-Reranker with our template: the server writes the prompt on its rerank route",
        (*WHOLE, "--chat-template", str(TEMPLATES / "sglang" / "qwen3-reranker.jinja")),
    ),
    "sglang-xlmr-rr-defaults": Launch(
        "sglang", "xlmr-rr", "a mistake: a cross-encoder without the two flags; the first rerank kills the server"
    ),
    "sglang-qwen3-rr-embedding": Launch(
        "sglang",
        "qwen3-rr-orig",
        "a mistake: Qwen3-Reranker with --is-embedding; its rerank route answers 200 with noise",
        ("--is-embedding", *WHOLE),
    ),
    "sglang-minilm": Launch(
        "sglang",
        "minilm",
        "an embedder that SGLang pools by CLS: valid vectors, but not MiniLM's",
        ("--is-embedding", *WHOLE),
    ),
    "sglang-qwen3-emb": Launch(
        "sglang",
        "qwen3-emb",
        "an embedder: last token pooling, 64 wide, takes `dimensions` 16, 32 and 64",
        ("--is-embedding", *WHOLE, "--json-model-override-args", '{"matryoshka_dimensions": [16, 32, 64]}'),
    ),
    "sglang-xlmr-rr": Launch("sglang", "xlmr-rr", "a cross-encoder: raw logits", WHOLE),
    "sglang-qwen3-rr": Launch(
        "sglang", "qwen3-rr-orig", "Qwen3-Reranker as the generative model it is, no template", WHOLE
    ),
    "llamacpp-minilm": Launch("llamacpp", "minilm.gguf", "an embedder: mean pooling, 384 wide", ("--embedding",)),
    "llamacpp-xlmr-rr": Launch("llamacpp", "xlmr-rr.gguf", "a cross-encoder: raw logits", ("--reranking",)),
    "llamacpp-qwen3-rr": Launch(
        "llamacpp", "qwen3-rr.gguf", "Qwen3-Reranker: probabilities, prompt inside the GGUF", ("--reranking",)
    ),
    # The servers below are for `make parity` alone.
    "vllm-e5": Launch("vllm", "parity/e5", "an embedder as e5-small-v2: mean pooling"),
    "vllm-bge": Launch("vllm", "parity/bge", "an embedder as bge-small-en-v1.5: CLS pooling"),
    "vllm-xlmr-rr-zh": Launch("vllm", "parity/xlmr-rr", "a cross-encoder whose vocabulary has Chinese"),
    "vllm-bert-ce-zh": Launch("vllm", "parity/bert-ce", "a cross-encoder with an identity head, Chinese too"),
    "vllm-gemma-rr": Launch(
        "vllm",
        "parity/gemma-rr",
        "bge-reranker-v2-gemma, all overrides, no template: the client owns the prompt",
        ("--runner", "pooling", "--hf-overrides", GEMMA_RERANKER),
    ),
    "vllm-mxbai-rr": Launch(
        "vllm",
        "parity/mxbai-rr",
        "mxbai-rerank-base-v2, all overrides, no template: the client owns the prompt",
        ("--runner", "pooling", "--hf-overrides", MXBAI_RERANKER),
    ),
    "sglang-e5": Launch("sglang", "parity/e5", "an embedder that SGLang pools by CLS", ("--is-embedding", *WHOLE)),
    "sglang-bge": Launch("sglang", "parity/bge", "an embedder: CLS pooling", ("--is-embedding", *WHOLE)),
    "llamacpp-xlmr-rr-zh": Launch(
        "llamacpp", "parity/xlmr-rr.gguf", "a cross-encoder whose vocabulary has Chinese", ("--reranking",)
    ),
    "sglang-xlmr-rr-zh": Launch("sglang", "parity/xlmr-rr", "a cross-encoder whose vocabulary has Chinese", WHOLE),
    "sglang-bert-ce-zh": Launch("sglang", "parity/bert-ce", "a cross-encoder with an identity head, Chinese", WHOLE),
}


@contextmanager
def start(name: str) -> Iterator[Server]:
    """The server of a row, for as long as the context lasts."""
    launch = LAUNCHES[name]
    with serve(launch.engine, model(launch.model), name, *launch.flags) as server:
        yield server


def on(*names: str) -> pytest.MarkDecorator:
    """Runs a test once on each of these servers; the fixture `served` is the server.

    The fixture lives as long as the session, so pytest groups the tests of a server and starts it once.
    """
    return pytest.mark.parametrize("served", names, indirect=True)
