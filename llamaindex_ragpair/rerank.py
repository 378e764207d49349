"""A reranker for LlamaIndex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from pydantic import Field, PrivateAttr, SecretStr

from llamaindex_ragpair._nodes import (
    BLENDED_SCORE,
    RELEVANCE_SCORE,
    RERANK_ERROR,
    RETRIEVAL_SCORE,
    SCORE_KIND,
    with_hidden,
    without,
)
from llamaindex_ragpair._settings import ServerSettings, key_from_env, url_from_env
from ragpair import ConfigurationError, InvalidInput, RagpairError
from ragpair.errors import warn
from ragpair.options import OnError, OnTooLongDocument, Scores

if TYPE_CHECKING:
    from ragpair import Ranked, Reranker

dispatcher = get_dispatcher(__name__)


class RagpairRerank(ServerSettings, BaseNodePostprocessor):
    """Sorts nodes by their relevance to the query, as the reranker's authors define it.

    Running: a reranker on vLLM (`vllm serve BAAI/bge-reranker-v2-m3 --port 8001`), SGLang, llama.cpp, or Qwen3-Reranker
    on Ollama.

        from llamaindex_ragpair import RagpairRerank

        reranker = RagpairRerank(base_url="http://localhost:8001", top_n=3)
        engine = index.as_query_engine(similarity_top_k=30, node_postprocessors=[reranker])

    Without a server, `base_url="local", scores="raw"` sorts by a small English model in this process (pip install
    "ragpair[local]"); its scores are cosines.

    What comes back is new, best first, with the relevance as score, from 0 to 1; equal ones keep their order, and what
    was passed in is not touched. metadata["score_kind"] of a copy of the node says what its score is, and
    metadata["relevance_score"] which score that is said of, both hidden from LLM and embeddings. Each call shows as a
    reranking event to handlers and traces. Making one sends nothing, and it is safe to share between threads, tasks and
    event loops; async calls are native. Fields not set are read from RAGPAIR_RERANK_BASE_URL, and
    RAGPAIR_RERANK_API_KEY or RAGPAIR_API_KEY. The address of the embeddings is never taken: a server serves one or the
    other. `to_dict` leaves key and headers out, `from_dict(data, headers=...)` takes them again.

    Raises:
        ConfigurationError: An option that cannot be, or that does not exist; it is a `ValueError`, too.
    """

    base_url: str | list[str] = Field(default_factory=url_from_env("RAGPAIR_RERANK_BASE_URL", "RagpairRerank"))

    api_key: SecretStr | None = Field(
        default_factory=key_from_env("RAGPAIR_RERANK_API_KEY", "RAGPAIR_API_KEY"), exclude=True
    )

    scores: Scores = "probability"
    """"probability", 0 to 1; or "raw", what the server returns before that, where it can: logits, mostly."""

    too_long: OnTooLongDocument = "error"
    """What becomes of a node that does not fit beside the query: "error"; "truncate" keeps its beginning; "windows"
    scores overlapping passages, and the best one counts."""

    batch_size: int | None = None
    """Nodes in one request at most; None is what suits the engine."""

    on_error: OnError = "raise"
    """What becomes of nodes that cannot be judged: "raise" the error; or "return" them behind the others, without a
    score and with the error in metadata["rerank_error"], hidden from LLM and embeddings; with `min_score` they do not
    come back, but a warning says how many. The first use still raises, if no server answers."""

    top_n: int | None = Field(default=3, ge=1)
    """How many nodes come back at most; None is all."""

    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """Nodes below it do not come back; on the scale of `scores`."""

    metadata_mode: MetadataMode = MetadataMode.NONE
    """What of a node is judged: its bare text, which rerankers are trained on. "embed" puts the metadata before it, as
    LlamaIndex does for embeddings: file names and dates there lower scores (0.91 to 0.72 in one case), titles may help.
    """

    keep_retrieval_score: bool = False
    """Whether to keep the score that a node came with, in metadata["retrieval_score"] of a copy of the node. It is
    hidden from LLM and embeddings."""

    _reranker: Reranker = PrivateAttr()

    def _connect(self) -> None:
        if self.min_score is not None and self.scores == "probability" and not 0 <= self.min_score <= 1:
            raise ConfigurationError(
                f"min_score={self.min_score} is not between 0 and 1, where all scores are. Thresholds for logits or "
                "cosines want scores='raw'."
            )
        from ragpair import Reranker  # late: numpy and the core are most of the time that an import takes

        self._reranker = Reranker(**self._arguments(Reranker))

    @classmethod
    def class_name(cls) -> str:
        """Under this name LlamaIndex writes it down."""
        return "RagpairRerank"

    @property
    def reranker(self) -> Reranker:
        """What does the work: for plain scores, `describe()` and `close()`."""
        return self._reranker

    @dispatcher.span
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        query = _query(query_bundle)
        with self._reported(nodes, query) as best:
            texts = self._texts(nodes)
            if self.on_error == "raise":
                best += self._best(nodes, self._reranker.rank(query, texts, top_n=self.top_n))
            else:
                found = self._reranker.rank(query, texts, top_n=self.top_n, on_error="return")
                best += self._best(nodes, found.values, found.failures)
        return best

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        query = _query(query_bundle)
        with self._reported(nodes, query) as best:
            texts = self._texts(nodes)
            if self.on_error == "raise":
                best += self._best(nodes, await self._reranker.arank(query, texts, top_n=self.top_n))
            else:
                found = await self._reranker.arank(query, texts, top_n=self.top_n, on_error="return")
                best += self._best(nodes, found.values, found.failures)
        return best

    @contextmanager
    def _reported(self, nodes: list[NodeWithScore], query: str) -> Iterator[list[NodeWithScore]]:
        """Tell LlamaIndex's two event systems about a call; the nodes found go into the list that this yields."""
        best: list[NodeWithScore] = []
        name, top_n = self.reranker.model or "unknown", self.top_n or len(nodes)
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=top_n, model_name=name))
        payload: dict[str, object] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield best
            event.on_end(payload={EventPayload.NODES: best})
        dispatcher.event(ReRankEndEvent(nodes=best))

    def _texts(self, nodes: Sequence[NodeWithScore]) -> list[str]:
        return [item.node.get_content(metadata_mode=self.metadata_mode) for item in nodes]

    def _best(
        self,
        nodes: Sequence[NodeWithScore],
        ranking: Sequence[Ranked],
        failures: Mapping[int, RagpairError] | None = None,
    ) -> list[NodeWithScore]:
        if self.min_score is not None:
            if failures:
                warn(
                    f"{len(failures)} of {len(nodes)} nodes could not be judged, and with min_score "
                    f"they do not come back. The first error: {next(iter(failures.values()))}"
                )
            ranking, failures = [place for place in ranking if place.score >= self.min_score], None
        scored = [self._scored(nodes[place.index], place) for place in ranking]
        unscored = [self._unscored(nodes[index], error) for index, error in (failures or {}).items()]
        return [*scored, *unscored][: self.top_n]

    def _scored(self, item: NodeWithScore, place: Ranked) -> NodeWithScore:
        # The score alone does not tell what it is, and whoever comes next may write another over it.
        said: dict[str, float | str] = {SCORE_KIND: place.score_kind, RELEVANCE_SCORE: place.score}
        if self.keep_retrieval_score and item.score is not None:
            said[RETRIEVAL_SCORE] = item.score
        return item.model_copy(update={"node": with_hidden(_fresh(item), **said), "score": place.score})

    def _unscored(self, item: NodeWithScore, error: RagpairError) -> NodeWithScore:
        node = with_hidden(_fresh(item), **{RERANK_ERROR: str(error)})
        return item.model_copy(update={"node": node, "score": None})


def _fresh(item: NodeWithScore) -> BaseNode:
    """The node without what a reranker before this one said of it."""
    return without(item.node, BLENDED_SCORE, RELEVANCE_SCORE, RERANK_ERROR, SCORE_KIND)


def _query(query_bundle: QueryBundle | None) -> str:
    if query_bundle is None:
        raise InvalidInput("RagpairRerank needs the query: postprocess_nodes(nodes, query_str='where is my parcel?').")
    return query_bundle.query_str
