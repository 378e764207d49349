"""Query and documents to relevance, as the model's authors define it, on any of the engines.

A Reranker finds out once, at first use, which engine answers, which model it serves and how its scores are had; making
one costs nothing and sends nothing. It is safe to share between threads, tasks and event loops, and it pickles: a copy
keeps the settings and opens connections of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, overload

import numpy as np

from ragpair import catalog, resolve
from ragpair.catalog import Match, RerankerFamily
from ragpair.client import Client, Look, Partial, partial, report, whole
from ragpair.dialects.base import Dialect, Scale, ScorePlan, ScoreWish, Served
from ragpair.errors import ConfigurationError, EndpointError, InvalidInput, RagpairError
from ragpair.flows import Report, ScoreJob, score
from ragpair.options import Engine, OnError, OnTooLongDocument, Scores
from ragpair.prompts import frame
from ragpair.scores import ScoreKind, sigmoid
from ragpair.texts import check_text, check_texts
from ragpair.wire import Flow, send

# Replicas of one model agree on these as documents, with the first as query, whatever the precision of their weights.
_PROBE = ("Where is my parcel?", "The tracking number shows where your parcel is.", "Bananas are yellow.")
_SAME = 0.02


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document of a ranking.

    Attributes:
        index: Where it stood among the documents.
        score: Its relevance.
        score_kind: What the number is.
    """

    index: int
    score: float
    score_kind: ScoreKind


class Reranker(Client):
    """Query and documents to relevance, as the model's authors define it, on any of the engines.

    Args:
        base_url: As for `Embedder`.
        model: As for `Embedder`.
        engine: As for `Embedder`.
        family: Which reranker it is: "auto" looks the model's name up; an id says it; None takes it for a
            cross-encoder that is in no catalogue.
        instruction: What makes a document relevant, one English sentence, for families that take one.
        scores: "probability", 0 to 1, by the family's own activation; "raw" is what the server returns before that
            where it can (`score_kind` says what it is). Cosines and max-sims are no probabilities: they want "raw".
        too_long: What becomes of a document that does not fit beside the query: "error"; "truncate" keeps its
            beginning; "windows" scores overlapping passages, and the best one counts.
        batch_size: Documents in one request at most; None is what suits the engine, as for `Embedder`.
        max_concurrency: As for `Embedder`.
        timeout: As for `Embedder`.
        max_retries: As for `Embedder`.
        api_key: As for `Embedder`.
        headers: As for `Embedder`.
        extra_body: As for `Embedder`.

    Raises:
        ConfigurationError: An option that cannot be. At first use also: a server that was launched so that its scores
            would be wrong, with the command that mends it.
    """

    _task = "rerank"

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str | None = None,
        *,
        engine: Engine = "auto",
        family: str | None = "auto",
        instruction: str | None = None,
        scores: Scores = "probability",
        too_long: OnTooLongDocument = "error",
        batch_size: int | None = None,
        max_concurrency: int = 8,
        timeout: float = 120.0,
        max_retries: int = 3,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(settings)
        self._plans: dict[str | None, ScorePlan] = {}
        if scores not in get_args(Scores):
            raise ConfigurationError(f"scores={scores!r} is not known; it is 'probability' or 'raw'.")
        if family is not None and family != "auto":
            frame(catalog.family(family, "reranker"), instruction)

    @overload
    def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> Scale: ...

    @overload
    def score(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None, on_error: Literal["return"]
    ) -> Partial[Scale]: ...

    def score(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None, on_error: OnError = "raise"
    ) -> Scale | Partial[Scale]:
        """Relevance of each document.

        Args:
            query: What is searched for.
            documents: Candidates. Blank ones get the lowest score without being sent.
            instruction: Instead of the object's own, for this query.
            on_error: "raise" the first error, or "return" what could be had, with the errors beside it.

        Returns:
            float64 [n], in the order of the documents. With on_error="return" these are the `values` of a `Partial`.
        """
        return self._sync.run(self._score(query, documents, instruction, on_error))

    @overload
    async def ascore(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> Scale: ...

    @overload
    async def ascore(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None, on_error: Literal["return"]
    ) -> Partial[Scale]: ...

    async def ascore(
        self, query: str, documents: Sequence[str], *, instruction: str | None = None, on_error: OnError = "raise"
    ) -> Scale | Partial[Scale]:
        """Like `score`, awaited."""
        return await self._async.run(self._score(query, documents, instruction, on_error))

    @overload
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[Ranked]: ...

    @overload
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        on_error: Literal["return"],
    ) -> Partial[list[Ranked]]: ...

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        on_error: OnError = "raise",
    ) -> list[Ranked] | Partial[list[Ranked]]:
        """The documents by falling relevance; equal ones keep their order.

        Args:
            query: As for `score`.
            documents: As for `score`.
            top_n: How many to return at most; None is all.
            instruction: As for `score`.
            on_error: As for `score`; documents that failed are not in the ranking.
        """
        return self._sync.run(self._rank(query, documents, top_n, instruction, on_error))

    @overload
    async def arank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[Ranked]: ...

    @overload
    async def arank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        on_error: Literal["return"],
    ) -> Partial[list[Ranked]]: ...

    async def arank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        instruction: str | None = None,
        on_error: OnError = "raise",
    ) -> list[Ranked] | Partial[list[Ranked]]:
        """Like `rank`, awaited."""
        return await self._async.run(self._rank(query, documents, top_n, instruction, on_error))

    def describe(self) -> dict[str, Any]:
        """What was found at the server and how scores are had: engine, version, model, family, route, score_kind."""
        return self._sync.run(self._describe())

    def _describe(self) -> Flow[dict[str, Any]]:
        dialect, served, plan = yield from self._plan(None)
        match = resolve.reranker_match(self._settings["family"], self._settings["model"], served)
        return {
            "engine": dialect.name,
            "version": served.version,
            "model": served.model,
            "family": match.family.id if match else None,
            "route": plan.state,
            "score_kind": self._kind(plan),
            "limit": served.limit,
        }

    def _rank(
        self, query: str, documents: Sequence[str], top_n: int | None, instruction: str | None, on_error: OnError
    ) -> Flow[list[Ranked] | Partial[list[Ranked]]]:
        top_n = whole("top_n", top_n)
        kept = report(on_error)
        values = yield from self._values(query, documents, instruction, kept)
        ranking: list[Ranked] = []
        if len(values):
            _, _, plan = yield from self._plan(instruction)
            order = [int(index) for index in np.argsort(-values, kind="stable") if np.isfinite(values[index])]
            ranking = [Ranked(index, float(values[index]), self._kind(plan)) for index in order[:top_n]]
        return partial(ranking, kept)

    def _rank_iter(
        self, pairs: Iterable[tuple[str, Sequence[str]]], top_n: int | None
    ) -> Iterator[list[Ranked] | RagpairError]:
        """The rankings of many queries, in order, while the next ones are worked on: for whole files.

        An error stands in place of its ranking.
        """
        return self._sync.stream(self._rank_or_say(query, documents, top_n) for query, documents in pairs)

    def _rank_or_say(
        self, query: str, documents: Sequence[str], top_n: int | None
    ) -> Flow[list[Ranked] | RagpairError]:
        try:
            ranking = yield from self._rank(query, documents, top_n, None, "raise")
        except (InvalidInput, EndpointError) as exc:
            return exc
        return cast(list[Ranked], ranking)

    def _score(
        self, query: str, documents: Sequence[str], instruction: str | None, on_error: OnError
    ) -> Flow[Scale | Partial[Scale]]:
        kept = report(on_error)
        return partial((yield from self._values(query, documents, instruction, kept)), kept)

    def _values(self, query: str, documents: Sequence[str], instruction: str | None, kept: Report) -> Flow[Scale]:
        check_text(query, "the query")
        documents = check_texts(documents, "document", blank_ok=True, failures=kept.failures if kept.keep else None)
        if not documents:
            return np.empty(0)
        dialect, served, plan = yield from self._plan(instruction)
        common = self._common(dialect, served, kept)
        return (
            yield from score(ScoreJob(**common, plan=plan, query=query, scores=self._settings["scores"]), documents)
        )

    def _plan(self, instruction: str | None) -> Flow[tuple[Dialect, Served, ScorePlan]]:
        dialect, served = yield from self._connect()
        told = instruction if instruction is not None else self._settings["instruction"]
        plan = self._plans.get(told)
        if plan is None:
            match, wish = self._wish(served, told)
            plan = yield from dialect.plan_scores(served, wish)
            if self._settings["scores"] == "probability" and plan.served in ("cosine", "maxsim"):
                raise ConfigurationError(
                    f"{served.model!r} at {self.endpoint.shown} returns {plan.served} scores, which are no "
                    "probabilities: it is an embedding or late-interaction model. Pass the address of a reranker, or "
                    "scores='raw' to sort by them all the same."
                )
            self._caution(*plan.cautions, *resolve.reranker_cautions(match))
            self._plans[told] = plan
        return dialect, served, plan

    def _kind(self, plan: ScorePlan) -> ScoreKind:
        return "probability" if self._settings["scores"] == "probability" else plan.served

    def _wish(self, served: Served, told: str | None) -> tuple[Match[RerankerFamily] | None, ScoreWish]:
        match = resolve.reranker_match(self._settings["family"], self._settings["model"], served)
        raw, declared = self._settings["scores"] == "raw", self._settings["family"] is None
        return match, resolve.wish(match, served, told, raw=raw, declared=declared)

    def _sample(self, look: Look) -> Flow[tuple[Scale, str]]:
        _, wish = self._wish(look.served, self._settings["instruction"])
        plan = yield from look.dialect.plan_scores(look.served, wish)
        values = []
        for document in _PROBE:
            reply = yield from send(look.dialect.score_call(look.served, plan, _PROBE[0], [document]))
            if not reply.ok:
                raise look.dialect.refusal(reply, look.served, "rerank")
            values.append(look.dialect.read_scores(plan, reply, 1))
        scores = np.concatenate(values)
        return sigmoid(scores) if plan.served == "logit" else scores, reply.endpoint

    def _agree(self, one: Scale, other: Scale) -> bool:
        return bool(np.allclose(one, other, rtol=_SAME, atol=_SAME))
