"""What users hold: an Embedder that recalls and a Reranker that sorts.

Both find out once, at first use, which engine answers, which model it serves and how it wants to be asked; making one
costs nothing and sends nothing. Both are safe to share between threads, tasks and event loops, and both pickle: a copy
keeps the settings and opens connections of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import numpy as np

from ragpair import catalog, resolve
from ragpair.catalog import EmbeddingFamily, Match
from ragpair.dialects import DIALECTS, detect
from ragpair.dialects.base import Dialect, Scale, ScorePlan, Served, Task, Vectors
from ragpair.endpoint import Endpoint, parse_base_urls
from ragpair.errors import ConfigurationError, RagpairWarning
from ragpair.flows import EmbedJob, OnTooLong, OnTooLongDocument, ScoreJob, embed, score
from ragpair.prompts import Prompt, Side, embedding_prompt, frame, user_prompt
from ragpair.retry import RetryPolicy
from ragpair.scores import ScoreKind, Scores
from ragpair.texts import check_text, check_texts
from ragpair.wire import Flow

T = TypeVar("T")

Engine = Literal["auto", "vllm", "sglang", "ollama", "llamacpp"]

_SHOWN = ("model", "engine", "family", "instruction", "dimensions", "too_long", "scores")


class _Client:
    """Settings, drivers, and the one-time look at the server."""

    _task: ClassVar[Task]

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        engine, too_long, batch_size = settings["engine"], settings["too_long"], settings["batch_size"]
        if engine not in get_args(Engine):
            raise ConfigurationError(f"engine={engine!r} is not known; it is one of {', '.join(get_args(Engine))}.")
        ways = get_args(OnTooLong if self._task == "embed" else OnTooLongDocument)
        if too_long not in ways:
            raise ConfigurationError(f"too_long={too_long!r} is not known here; it is one of {', '.join(ways)}.")
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ConfigurationError(f"batch_size must be a whole number from 1, not {batch_size!r}.")
        self.endpoint = Endpoint(
            parse_base_urls(settings["base_url"]),
            api_key=settings["api_key"],
            headers=dict(settings["headers"] or {}),
            timeout=settings["timeout"],
            max_concurrency=settings["max_concurrency"],
            retry=RetryPolicy(max_retries=settings["max_retries"]),
        )
        from ragpair.drivers import AsyncDriver, SyncDriver  # late: httpx is half of the time that an import takes

        self._sync = SyncDriver(self.endpoint)
        self._async = AsyncDriver(self.endpoint)
        self._known: tuple[Dialect, Served] | None = None
        self._warned: set[str] = set()

    def _connect(self) -> Flow[tuple[Dialect, Served]]:
        if self._known is None:
            if self.endpoint.is_local:
                dialect = DIALECTS["local"]
            elif self._settings["engine"] == "auto":
                dialect = yield from detect()
            else:
                dialect = DIALECTS[self._settings["engine"]]
            served = yield from dialect.inspect(self._settings["model"], self._task)
            self._caution(*served.cautions)
            self._known = (dialect, served)
        return self._known

    @property
    def model(self) -> str | None:
        """Name of the model: as served once that is known, else as the user said it."""
        return self._known[1].model if self._known else self._settings["model"]

    def _caution(self, *cautions: str) -> None:
        for caution in cautions:
            if caution not in self._warned:
                self._warned.add(caution)
                warnings.warn(caution, RagpairWarning, stacklevel=2)

    def _common(self, dialect: Dialect, served: Served) -> dict[str, Any]:
        return {
            "dialect": dialect,
            "served": served,
            "batch_size": self._settings["batch_size"] or dialect.batch_size,
            "too_long": self._settings["too_long"],
            "extra_body": self._settings["extra_body"] or {},
            "endpoint": self.endpoint.shown,
        }

    def close(self) -> None:
        """Close the connections that sync calls opened in this process. The object can be used again."""
        self._sync.close()

    async def aclose(self) -> None:
        """Close the connections that async calls opened on this event loop. The object can be used again."""
        await self._async.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __getstate__(self) -> dict[str, Any]:
        return dict(self._settings)

    def __setstate__(self, settings: dict[str, Any]) -> None:
        type(self).__init__(self, **settings)

    def __repr__(self) -> str:
        shown = [f"{name}={self._settings[name]!r}" for name in _SHOWN if self._settings.get(name) is not None]
        return f"{type(self).__name__}({self.endpoint.shown!r}, {', '.join(shown)})"


class Embedder(_Client):
    """Texts to vectors, with the model's own prompts, on any of the engines.

    Args:
        base_url: Address of the server, with or without "/v1"; several addresses are replicas of one model; "local" is
            the embedded engine, which runs in this process.
        model: Name of the model on the server; None takes the only one served.
        engine: "vllm", "sglang", "ollama" or "llamacpp"; "auto" asks the server.
        family: Whose prompts to use: "auto" looks the model's name up in the catalogue; the id of a family or of a
            model says it; None sends texts as they are.
        instruction: What queries look for, one English sentence, for families that take one; None is the default of
            the model's authors.
        query_prompt: In place of the family's: a prefix such as "query: ", or a template with {text}.
        document_prompt: The same for documents.
        dimensions: Width of the vectors, for models that were trained to be cut.
        too_long: What becomes of a text over the model's limit: "error", or "truncate" keeps its beginning.
        batch_size: Texts in one request at most; None is what suits the engine: 128 on vLLM and SGLang, 64 on Ollama,
            32 elsewhere.
        max_concurrency: Requests in flight at most, over everybody who shares the object.
        timeout: Seconds to wait for the answer to one request.
        max_retries: How often to try again after faults that pass.
        api_key: As the server was started with.
        headers: More headers for every request.
        extra_body: More fields for the body of every embedding request, such as {"options": {"num_ctx": 8192}} for
            Ollama.

    Raises:
        ConfigurationError: An option that cannot be.

    All methods raise `InvalidInput` for what is no text, before anything is sent, and an `EndpointError` or
    `ConfigurationError` for what went wrong with the server.
    """

    _task = "embed"

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str | None = None,
        *,
        engine: Engine = "auto",
        family: str | None = "auto",
        instruction: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dimensions: int | None = None,
        too_long: OnTooLong = "error",
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
        self._matched: tuple[Match[EmbeddingFamily] | None] | None = None  # looked up once the model is known
        if dimensions is not None and dimensions < 1:
            raise ConfigurationError(f"dimensions must be at least 1, not {dimensions}.")
        for prompt in (query_prompt, document_prompt):
            if prompt is not None:
                user_prompt(prompt, instruction if "{instruction}" in prompt else None)
        if family is not None and family != "auto":
            embedding_prompt(catalog.family(family, "embedding"), "query", instruction)

    def embed_queries(self, texts: Sequence[str], *, instruction: str | None = None) -> Vectors:
        """Vectors of what is searched for.

        Args:
            texts: Queries.
            instruction: Instead of the object's own, for these queries.

        Returns:
            float32 [n, d], L2-normalised, in the order of the texts; [0, 0] for no texts.
        """
        return self._sync.run(self._embed(texts, "query", instruction))

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is searched in; otherwise like `embed_queries`."""
        return self._sync.run(self._embed(texts, "document"))

    async def aembed_queries(self, texts: Sequence[str], *, instruction: str | None = None) -> Vectors:
        """Like `embed_queries`, awaited."""
        return await self._async.run(self._embed(texts, "query", instruction))

    async def aembed_documents(self, texts: Sequence[str]) -> Vectors:
        """Like `embed_documents`, awaited."""
        return await self._async.run(self._embed(texts, "document"))

    def describe(self) -> dict[str, Any]:
        """What was found at the server and how texts are sent: engine, version, model, family, prompts, limit."""
        return self._sync.run(self._describe())

    def _describe(self) -> Flow[dict[str, Any]]:
        dialect, served, match = yield from self._look()
        return {
            "engine": dialect.name,
            "version": served.version,
            "model": served.model,
            "family": match.family.id if match else None,
            "query_prompt": self._prompt(match, "query", None).render("{text}"),
            "document_prompt": self._prompt(match, "document", None).render("{text}"),
            "limit": served.limit,
        }

    def _embed(self, texts: Sequence[str], side: Side, instruction: str | None = None) -> Flow[Vectors]:
        texts = check_texts(texts, side)
        if not texts:
            return np.empty((0, self._settings["dimensions"] or 0), np.float32)
        dialect, served, match = yield from self._look()
        prompt = self._prompt(match, side, instruction)
        dimensions, cut = resolve.widths(self._settings["dimensions"], match, dialect, served)
        job = EmbedJob(**self._common(dialect, served), dimensions=dimensions, cut=cut)
        return (yield from embed(job, texts, prompt))

    def _look(self) -> Flow[tuple[Dialect, Served, Match[EmbeddingFamily] | None]]:
        dialect, served = yield from self._connect()
        if self._matched is not None:
            return dialect, served, self._matched[0]
        match = resolve.embedding_match(self._settings["family"], self._settings["model"], served)
        resolve.check_pooling(match, served)
        own = self._settings["family"] is None or any(
            self._settings[f"{side}_prompt"] is not None for side in get_args(Side)
        )
        self._caution(*resolve.embedding_cautions(match, served, own_prompts=own))
        self._matched = (match,)
        return dialect, served, match

    def _prompt(self, match: Match[EmbeddingFamily] | None, side: Side, instruction: str | None) -> Prompt:
        told = instruction if instruction is not None else self._settings["instruction"]
        return resolve.prompt(match, side, self._settings[f"{side}_prompt"], told)


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


class Reranker(_Client):
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
        batch_size: Documents in one request at most.
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
        batch_size: int = 32,
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

    def score(self, query: str, documents: Sequence[str], *, instruction: str | None = None) -> Scale:
        """Relevance of each document.

        Args:
            query: What is searched for.
            documents: Candidates. Blank ones get the lowest score without being sent.
            instruction: Instead of the object's own, for this query.

        Returns:
            float64 [n], in the order of the documents.
        """
        return self._sync.run(self._score(query, documents, instruction))

    async def ascore(self, query: str, documents: Sequence[str], *, instruction: str | None = None) -> Scale:
        """Like `score`, awaited."""
        return await self._async.run(self._score(query, documents, instruction))

    def rank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, instruction: str | None = None
    ) -> list[Ranked]:
        """The documents by falling relevance; equal ones keep their order.

        Args:
            query: As for `score`.
            documents: As for `score`.
            top_n: How many to return at most; None is all.
            instruction: As for `score`.
        """
        return self._sync.run(self._rank(query, documents, top_n, instruction))

    async def arank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, instruction: str | None = None
    ) -> list[Ranked]:
        """Like `rank`, awaited."""
        return await self._async.run(self._rank(query, documents, top_n, instruction))

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
        self, query: str, documents: Sequence[str], top_n: int | None, instruction: str | None
    ) -> Flow[list[Ranked]]:
        if top_n is not None and top_n < 1:
            raise ConfigurationError(f"top_n must be at least 1, not {top_n}.")
        values = yield from self._score(query, documents, instruction)
        if not len(values):
            return []
        _, _, plan = yield from self._plan(instruction)
        order = np.argsort(-values, kind="stable")[:top_n]
        return [Ranked(int(index), float(values[index]), self._kind(plan)) for index in order]

    def _score(self, query: str, documents: Sequence[str], instruction: str | None) -> Flow[Scale]:
        check_text(query, "the query")
        documents = check_texts(documents, "document", blank_ok=True)
        if not documents:
            return np.empty(0)
        dialect, served, plan = yield from self._plan(instruction)
        job = ScoreJob(**self._common(dialect, served), plan=plan, scores=self._settings["scores"])
        return (yield from score(job, query, documents))

    def _plan(self, instruction: str | None) -> Flow[tuple[Dialect, Served, ScorePlan]]:
        dialect, served = yield from self._connect()
        told = instruction if instruction is not None else self._settings["instruction"]
        plan = self._plans.get(told)
        if plan is None:
            match = resolve.reranker_match(self._settings["family"], self._settings["model"], served)
            raw, declared = self._settings["scores"] == "raw", self._settings["family"] is None
            wish = resolve.wish(match, served, told, raw=raw, declared=declared)
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
