"""The launch that is right for a model: what to type in place of what was typed."""

from __future__ import annotations

from pathlib import Path

from ragpair import catalog
from ragpair.catalog import EmbeddingFamily, RerankerFamily
from ragpair.dialects.base import Task
from ragpair.dialects.vllm import LAUNCH_QWEN3

_TEMPLATES = Path(__file__).parents[1] / "templates"
_ENCODERS = "--disable-radix-cache --chunked-prefill-size -1 --attention-backend triton"


def cure(engine: str, task: Task | None, family: str, source: str | None) -> str:
    """The command that serves this model for this task on this engine; "" where none is known.

    Args:
        engine: Name of the dialect.
        task: What the model shall do.
        family: Its family.
        source: Its repository or folder; None takes the first model of the family.
    """
    known = catalog.families()[family]
    if (known.kind == "reranker") != (task == "rerank"):
        return ""  # no launch makes the one of the other
    model = source or known.models[0].repo
    match engine, task:
        case "vllm", "rerank" if family == "qwen3-reranker":
            return LAUNCH_QWEN3.replace("Qwen/Qwen3-Reranker-0.6B", model)
        case "vllm", "rerank" if isinstance(known, RerankerFamily) and known.type == "cross-encoder":
            return f"vllm serve {model}"
        case "vllm", "embed":
            return f"vllm serve {model} --runner pooling"
        case "sglang", "rerank" if isinstance(known, RerankerFamily) and known.type == "yes-no":
            return f"sglang serve --model-path {model} --disable-radix-cache"
        case "sglang", "rerank":
            return f"sglang serve --model-path {model} {_ENCODERS}"
        case "sglang", "embed" if isinstance(known, EmbeddingFamily) and known.pooling in ("cls", "mean"):
            if known.pooling == "mean":  # which SGLang cannot do for encoders
                return f"vllm serve {model} --runner pooling"
            return f"sglang serve --model-path {model} --is-embedding {_ENCODERS}"
        case "sglang", "embed":
            return f"sglang serve --model-path {model} --is-embedding"
        case "llamacpp", "rerank":
            return "llama-server -m MODEL.gguf --reranking"
        case "llamacpp", "embed":
            return "llama-server -m MODEL.gguf --embeddings"
    return ""


def template_flag(engine: str, family: str | None) -> str:
    """The flag that gives the server our template of the card's prompt; "" where there is none."""
    path = _TEMPLATES / engine / f"{family}.jinja"
    return f"--chat-template {path}" if path.is_file() else ""
