"""Relevance, blended with price, sales and their like, for LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableLambda
from pydantic import Field

from langchain_ragpair._settings import Settings
from ragpair.blend import blend, kind_of
from ragpair.calibrate import Calibration
from ragpair.errors import InvalidInput


class RagpairSignalBlend(Settings, BaseDocumentCompressor):
    """Sorts reranked documents by their relevance and by what is in their metadata: price, sales, rating.

    It stands behind a reranker that keeps all candidates (`pip install langchain-classic` for LangChain's pipeline):

        from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
        from langchain_ragpair import RagpairRerank, RagpairSignalBlend

        rerank = RagpairRerank(base_url="http://localhost:8001", top_n=None)
        blend = RagpairSignalBlend(weights={"price": -0.5, "sales": 0.5}, top_n=5)
        compressor = DocumentCompressorPipeline(transformers=[rerank, blend])

    Signals multiply, within a bound: with W the sum of the weights without their signs, a document keeps between
    1 / (1 + W) and all of its relevance, so that no bargain ever overtakes what is more than 1 + W times as relevant.
    With all weights 0 the order is that of relevance. `ragpair.blend` has the formula.

    The documents that come back are copies, best first, with metadata["blended_score"], a float from 0 to 1; what was
    there stays. Documents that the reranker could not judge (its `on_error="return"`) come last. Each call shows as a
    run named "RagpairSignalBlend" in traces.

    Raises:
        ConfigurationError: An option that cannot be, or that does not exist. When it is called: scores that are no
            probabilities and no `calibration` for them.
        InvalidInput: When it is called: a document without a relevance, a signal that no document has, or one that is
            below 0 or no number.
    """

    weights: dict[str, float] = Field(min_length=1)
    """How much each entry of the metadata counts. Above 0 more is better, below 0 less is: {"price": -0.5, "sales":
    0.5}. Numbers of 0 or more; a document without one, or with None, counts like the typical one. 0 must mean nothing
    of it: ratings from 1 to 5 lie too close together to count, max(rating - 3, 0) does not."""

    calibration: Calibration | None = None
    """What `ragpair.calibrate.calibrate` made of judged pairs: needed for rerankers with `scores="raw"`."""

    top_n: int | None = Field(default=3, ge=1)
    """How many documents come back at most; None is all."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents, best first.

        Args:
            documents: Candidates with metadata["relevance_score"]; none of them is changed.
            query: Is not needed: the relevance is there already.
            callbacks: Where to show the run; by default that of the chain around.

        Returns:
            At most `top_n` copies with metadata["blended_score"].
        """
        run = RunnableLambda(self._blended, name="RagpairSignalBlend")
        return run.invoke(list(documents), {"callbacks": callbacks})

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Like `compress_documents`; there is nothing to wait for."""
        return self.compress_documents(documents, query, callbacks)

    def _check(self) -> None:
        blend([], dict.fromkeys(self.weights, ()), self.weights)

    def _blended(self, documents: list[Document]) -> list[Document]:
        judged = [document for document in documents if "rerank_error" not in document.metadata]
        if not judged:
            return documents[: self.top_n]
        kinds = [document.metadata["score_kind"] for document in judged if "score_kind" in document.metadata]
        try:
            scores = blend(
                [_relevance(index, document) for index, document in enumerate(judged)],
                {name: _signal(name, judged) for name in self.weights},
                self.weights,
                calibration=self.calibration,
                score_kind=kind_of(kinds, self.calibration),
            )
        except InvalidInput as exc:
            raise _named(exc, judged) from None
        order = (-scores).argsort(kind="stable")
        best = [
            judged[index].model_copy(
                update={"metadata": {**judged[index].metadata, "blended_score": float(scores[index])}}
            )
            for index in order
        ]
        return [*best, *(document for document in documents if "rerank_error" in document.metadata)][: self.top_n]


def _relevance(index: int, document: Document) -> Any:
    if "relevance_score" not in document.metadata:
        raise InvalidInput(
            f"The document at index {index} has no metadata['relevance_score']: put RagpairRerank(..., top_n=None) "
            "before RagpairSignalBlend.",
            index=index,
        )
    return document.metadata["relevance_score"]


def _signal(name: str, documents: Sequence[Document]) -> list[Any]:
    if not any(name in document.metadata for document in documents):
        raise InvalidInput(
            f"None of the {len(documents)} documents has a metadata[{name!r}], not even None; the first one has "
            f"{', '.join(sorted(documents[0].metadata))}."
        )
    return [document.metadata.get(name) for document in documents]


def _named(exc: InvalidInput, documents: Sequence[Document]) -> InvalidInput:
    """The error with the document that it is about: nobody can look up an index among the candidates of one query."""
    if exc.index is None:
        return exc
    document = documents[exc.index]
    number = f"{document.id}, " if document.id else ""
    return InvalidInput(f"{exc} The document: {number}{document.page_content[:60]!r}.", index=exc.index)
