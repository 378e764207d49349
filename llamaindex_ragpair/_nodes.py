"""What our postprocessors write beside a node's score: entries of its metadata that no prompt shows."""

from __future__ import annotations

from llama_index.core.schema import BaseNode

BLENDED_SCORE = "blended_score"
RELEVANCE_SCORE = "relevance_score"
RERANK_ERROR = "rerank_error"
RETRIEVAL_SCORE = "retrieval_score"
SCORE_KIND = "score_kind"


def with_hidden(node: BaseNode, key: str, value: float | str | None) -> BaseNode:
    """A copy of the node with one more entry in its metadata, hidden from LLM and embeddings."""
    return node.model_copy(
        update={
            "metadata": {**node.metadata, key: value},
            "excluded_embed_metadata_keys": _with(node.excluded_embed_metadata_keys, key),
            "excluded_llm_metadata_keys": _with(node.excluded_llm_metadata_keys, key),
        }
    )


def _with(keys: list[str], key: str) -> list[str]:
    return keys if key in keys else [*keys, key]


def without(node: BaseNode, *keys: str) -> BaseNode:
    """The node, or a copy of it that lacks these entries."""
    if not any(key in node.metadata for key in keys):
        return node
    return node.model_copy(update={"metadata": {key: value for key, value in node.metadata.items() if key not in keys}})
