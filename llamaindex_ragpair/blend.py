"""Relevance, blended with price, sales and their like, for LlamaIndex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import Field

from llamaindex_ragpair._nodes import BLENDED_SCORE, RELEVANCE_SCORE, RERANK_ERROR, SCORE_KIND, with_hidden
from llamaindex_ragpair._settings import Settings
from ragpair.blend import blend, kind_of
from ragpair.calibrate import Calibration
from ragpair.errors import InvalidInput
from ragpair.scores import ScoreKind


class RagpairSignalBlend(Settings, BaseNodePostprocessor):
    """Sorts reranked nodes by their relevance and by what is in their metadata: price, sales, rating.

    It stands behind a reranker that keeps all candidates:

        from llamaindex_ragpair import RagpairRerank, RagpairSignalBlend

        rerank = RagpairRerank(base_url="http://localhost:8001", top_n=None)
        blend = RagpairSignalBlend(weights={"price": -0.5, "sales": 0.5}, top_n=5)
        engine = index.as_query_engine(similarity_top_k=50, node_postprocessors=[rerank, blend])

    Signals multiply, within a bound: with W the sum of the weights without their signs, a node keeps between 1 / (1 +
    W) and all of its relevance, so that no bargain ever overtakes what is more than 1 + W times as relevant. With all
    weights 0 the order is that of relevance. `ragpair.blend` has the formula.

    What comes back is new, best first, with the blend as score and as metadata["blended_score"], from 0 to 1, and the
    relevance in metadata["relevance_score"] of a copy of the node, all hidden from LLM and embeddings;
    metadata["score_kind"] is of the relevance. A second blend begins with that relevance, unless another's reranker has
    set the score since. Nodes that the reranker could not judge (its `on_error="return"`) come last.

    Raises:
        ConfigurationError: An option that cannot be, or that does not exist. When it is called: scores that are no
            probabilities and no `calibration` for them.
        InvalidInput: When it is called: a node without a relevance, a signal that no node has, or one that is below 0
            or no number. Scores that do not say what they are, as those of retrievers and of others' rerankers, are no
            relevance without a `calibration`.
    """

    weights: dict[str, float] = Field(min_length=1)
    """How much each entry of the metadata counts. Above 0 more is better, below 0 less is: {"price": -0.5, "sales":
    0.5}. Numbers of 0 or more; a node without one, or with None, counts like the typical one. 0 must mean nothing
    of it: ratings from 1 to 5 lie too close together to count, max(rating - 3, 0) does not."""

    calibration: Calibration | None = None
    """What `ragpair.calibrate.calibrate` made of judged pairs: needed for rerankers with `scores="raw"`."""

    top_n: int | None = Field(default=3, ge=1)
    """How many nodes come back at most; None is all."""

    @classmethod
    def class_name(cls) -> str:
        """Under this name LlamaIndex writes it down."""
        return "RagpairSignalBlend"

    def _connect(self) -> None:
        blend([], dict.fromkeys(self.weights, ()), self.weights)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        judged = [item for item in nodes if RERANK_ERROR not in item.node.metadata]
        if not judged:
            return nodes[: self.top_n]
        kind = kind_of([item.node.metadata[SCORE_KIND] for item in judged if _is_ours(item)], self.calibration)
        try:
            relevance = [self._relevance(index, item) for index, item in enumerate(judged)]
            scores = blend(
                relevance,
                {name: _signal(name, judged) for name in self.weights},
                self.weights,
                calibration=self.calibration,
                score_kind=kind,
            )
        except InvalidInput as exc:
            raise _named(exc, judged) from None
        order = (-scores).argsort(kind="stable")
        best = [_blended(judged[index], relevance[index], kind, float(scores[index])) for index in order]
        return [*best, *(item for item in nodes if RERANK_ERROR in item.node.metadata)][: self.top_n]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return self._postprocess_nodes(nodes, query_bundle)

    def _relevance(self, index: int, item: NodeWithScore) -> float:
        ours = _is_ours(item)
        if item.score is None or (not ours and self.calibration is None):
            raise InvalidInput(
                f"The node at index {index} has no relevance, but {_found(item)}: put RagpairRerank(..., top_n=None) "
                "before RagpairSignalBlend. Scores of another reranker need a calibration=, fitted on judged pairs: "
                "ragpair.calibrate.",
                index=index,
            )
        relevance: float = item.node.metadata[RELEVANCE_SCORE] if ours else item.score
        return relevance


def _is_ours(item: NodeWithScore) -> bool:
    """Whether its score is still the one that our reranker or a blend gave it, so that what they said holds."""
    metadata = item.node.metadata
    ours = (metadata[key] for key in (RELEVANCE_SCORE, BLENDED_SCORE) if key in metadata)
    return SCORE_KIND in metadata and item.score in ours


def _blended(item: NodeWithScore, relevance: float, kind: ScoreKind, score: float) -> NodeWithScore:
    said = {SCORE_KIND: kind, RELEVANCE_SCORE: relevance, BLENDED_SCORE: score}
    return NodeWithScore(node=with_hidden(item.node, **said), score=score)


def _signal(name: str, nodes: Sequence[NodeWithScore]) -> list[Any]:
    if not any(name in item.node.metadata for item in nodes):
        raise InvalidInput(
            f"None of the {len(nodes)} nodes has a metadata[{name!r}], not even None; the first one has "
            f"{', '.join(sorted(nodes[0].node.metadata)) or 'none at all'}."
        )
    return [item.node.metadata.get(name) for item in nodes]


def _found(item: NodeWithScore) -> str:
    return "no score at all" if item.score is None else "a score that a retriever may have given, such as a similarity"


def _named(exc: InvalidInput, nodes: Sequence[NodeWithScore]) -> InvalidInput:
    """The error with the node that it is about: nobody can look up an index among the candidates of one query."""
    if exc.index is None:
        return exc
    node = nodes[exc.index].node
    return InvalidInput(f"{exc} The node: {node.node_id}, {node.get_content()[:60]!r}.", index=exc.index)
