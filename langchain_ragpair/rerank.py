"""A reranker for LangChain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableLambda
from pydantic import Field, SecretStr

from langchain_ragpair._settings import ServerSettings, key_from_env, url_from_env
from ragpair import ConfigurationError, RagpairError
from ragpair.errors import warn
from ragpair.options import OnError, OnTooLongDocument, Scores

if TYPE_CHECKING:
    from ragpair import Ranked, Reranker


class _Candidates(TypedDict):
    """The input of a traced run."""

    query: str
    documents: list[Document]


class RagpairRerank(ServerSettings, BaseDocumentCompressor):
    """Sorts documents by their relevance to a query, as the reranker's authors define it.

    Running: a reranker on vLLM (`vllm serve BAAI/bge-reranker-v2-m3 --port 8001`), SGLang, llama.cpp, or Qwen3-Reranker
    on Ollama.

        from langchain_ragpair import RagpairRerank

        reranker = RagpairRerank(base_url="http://localhost:8001", top_n=3)
        best = reranker.compress_documents(documents, "where is my parcel?")

    In a chain it is the `base_compressor` of langchain-classic's ContextualCompressionRetriever. Without a server,
    `base_url="local", scores="raw"` sorts by the cosines of a small English model in this process (pip install
    "ragpair[local]").

    The documents that come back are copies, best first, with the relevance in metadata["relevance_score"], a float from
    0 to 1, and what it is in metadata["score_kind"], "probability"; equal ones keep their order, ids stay, and what was
    passed in is not touched. Each call shows as a run named "RagpairRerank" in traces. Making one sends nothing, and it
    is safe to share between threads, tasks and event loops. Fields not set are read from RAGPAIR_RERANK_BASE_URL, and
    RAGPAIR_RERANK_API_KEY or RAGPAIR_API_KEY. The address of the embeddings is never taken: a server serves one or the
    other.

    Raises:
        ConfigurationError: An option that cannot be, or that does not exist; it is a `ValueError`, too.
    """

    base_url: str | list[str] = Field(
        default_factory=url_from_env(
            "RAGPAIR_RERANK_BASE_URL",
            "RagpairRerank needs",
            "with scores='raw' is the embedded model, which needs no server",
        )
    )

    api_key: SecretStr | None = Field(default_factory=key_from_env("RAGPAIR_RERANK_API_KEY", "RAGPAIR_API_KEY"))

    scores: Scores = "probability"
    """"probability", 0 to 1; or "raw", what the server returns before that, where it can: logits, mostly."""

    too_long: OnTooLongDocument = "error"
    """What becomes of a document that does not fit beside the query: "error"; "truncate" keeps its beginning; "windows"
    scores overlapping passages, and the best one counts."""

    batch_size: int | None = None
    """Documents in one request at most; None is what suits the engine."""

    on_error: OnError = "raise"
    """What becomes of documents that cannot be judged: "raise" the error; or "return" them behind the others, with the
    error in metadata["rerank_error"] and no score, so that with `min_score` they do not come back, but a warning says
    how many. The first use still raises, if no server answers."""

    top_n: int | None = Field(default=3, ge=1)
    """How many documents come back at most; None is all."""

    min_score: float | None = Field(default=None, allow_inf_nan=False)
    """Documents below it do not come back; on the scale of `scores`."""

    @cached_property
    def reranker(self) -> Reranker:
        """What does the work: for plain scores, `describe()` and `close()`."""
        from ragpair import Reranker  # late: numpy and the core are most of the time that an import takes

        return Reranker(**self._arguments(Reranker))

    def _check(self) -> None:
        if self.min_score is not None and self.scores == "probability" and not 0 <= self.min_score <= 1:
            raise ConfigurationError(
                f"min_score={self.min_score} is not between 0 and 1, where all scores are. Thresholds for logits or "
                "cosines want scores='raw'."
            )
        _ = self.reranker

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The most relevant documents, best first.

        Args:
            documents: Candidates; none of them is changed.
            query: What is searched for.
            callbacks: Where to show the run; by default that of the chain around.

        Returns:
            At most `top_n` copies with metadata["relevance_score"].
        """
        if not documents:
            return []
        return self._run.invoke({"query": query, "documents": list(documents)}, {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Like `compress_documents`, awaited."""
        if not documents:
            return []
        return await self._run.ainvoke({"query": query, "documents": list(documents)}, {"callbacks": callbacks})

    @property
    def _run(self) -> RunnableLambda[_Candidates, list[Document]]:
        return RunnableLambda(self._rank, self._arank, name="RagpairRerank")

    def _rank(self, candidates: _Candidates) -> list[Document]:
        texts = [document.page_content for document in candidates["documents"]]
        if self.on_error == "raise":
            return self._scored(candidates, self.reranker.rank(candidates["query"], texts, top_n=self.top_n))
        found = self.reranker.rank(candidates["query"], texts, top_n=self.top_n, on_error="return")
        return self._scored(candidates, found.values, found.failures)

    async def _arank(self, candidates: _Candidates) -> list[Document]:
        texts = [document.page_content for document in candidates["documents"]]
        if self.on_error == "raise":
            return self._scored(candidates, await self.reranker.arank(candidates["query"], texts, top_n=self.top_n))
        found = await self.reranker.arank(candidates["query"], texts, top_n=self.top_n, on_error="return")
        return self._scored(candidates, found.values, found.failures)

    def _scored(
        self, candidates: _Candidates, ranking: Sequence[Ranked], failures: Mapping[int, RagpairError] | None = None
    ) -> list[Document]:
        documents = candidates["documents"]
        if self.min_score is not None:
            if failures:
                warn(
                    f"{len(failures)} of {len(documents)} documents could not be judged, and with min_score "
                    f"they do not come back. The first error: {next(iter(failures.values()))}"
                )
            ranking, failures = [place for place in ranking if place.score >= self.min_score], None
        scored = [
            _with(documents[place.index], relevance_score=place.score, score_kind=place.score_kind) for place in ranking
        ]
        unscored = [_with(documents[index], rerank_error=str(error)) for index, error in (failures or {}).items()]
        return [*scored, *unscored][: self.top_n]


# What a reranker before this one said is not true of its scores.
_OURS = frozenset({"relevance_score", "score_kind", "rerank_error", "blended_score"})


def _with(document: Document, **metadata: object) -> Document:
    kept = {name: value for name, value in document.metadata.items() if name not in _OURS}
    return document.model_copy(update={"metadata": {**kept, **metadata}})
