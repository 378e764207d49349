"""What our postprocessors write beside a node's score: entries of its metadata that no prompt shows."""

from __future__ import annotations

from collections.abc import Iterable

from llama_index.core.schema import BaseNode

BLENDED_SCORE = "blended_score"
RELEVANCE_SCORE = "relevance_score"
RERANK_ERROR = "rerank_error"
RETRIEVAL_SCORE = "retrieval_score"
SCORE_KIND = "score_kind"


def with_hidden(node: BaseNode, **entries: float | str | None) -> BaseNode:
    """A copy of the node with more entries in its metadata, hidden from LLM and embeddings."""
    return node.model_copy(
        update={
            "metadata": {**node.metadata, **entries},
            "excluded_embed_metadata_keys": _with(node.excluded_embed_metadata_keys, entries),
            "excluded_llm_metadata_keys": _with(node.excluded_llm_metadata_keys, entries),
        }
    )


def _with(keys: list[str], more: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*keys, *more]))


def without(node: BaseNode, *keys: str) -> BaseNode:
    """The node, or a copy of it that lacks these entries."""
    if not any(key in node.metadata for key in keys):
        return node
    return node.model_copy(update={"metadata": {key: value for key, value in node.metadata.items() if key not in keys}})
