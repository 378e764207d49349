"""What a checkup finds, and what is made of it: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ragpair.dialects.base import Task, Vectors
from ragpair.errors import RagpairError

Severity = Literal["problem", "warning", "note"]
Access = Literal["open", "key"]
Template = Literal["none", "card", "other"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What the user says of the server.

    Attributes:
        model: Name of the model on it; None takes the only one.
        expect: What the model is for; None finds out.
        family: "auto", the id of a family, or None.
        engine: "auto", or the engine behind a gateway that hides it.
        api_key: Never shown.
        timeout: Seconds to wait for one answer.
        wait: Seconds to wait for a server that is not there yet.
    """

    model: str | None = None
    expect: Task | None = None
    family: str | None = "auto"
    engine: str = "auto"
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What the core refused to do, and for which task it was asked."""

    error: RagpairError
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """How vectors are made.

    Attributes:
        vectors: Of the probe texts, as they came; the last text is the first again.
        pooling: How the engine pools, if it tells.
        query_prompt: Around a query.
        document_prompt: Around a document.
    """

    vectors: Vectors
    pooling: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.vectors.shape[1])


@dataclass(frozen=True, slots=True)
class Reranking:
    """How scores are had.

    Attributes:
        route: The way that the core found.
        score_kind: What the numbers are.
        scores: Of the probe pairs.
        template: What the server's own rerank route makes of an LLM reranker's prompt: bare text, the prompt of the
            model's card, or something else; None where nobody can tell or it does not matter.
        own_scores: Of the probe pairs, over that route.
    """

    route: str
    score_kind: str
    scores: tuple[float, ...]
    template: Template | None = None
    own_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Separation:
    """In how many of the built-in pairs of one language the relevant text came first."""

    right: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """The facts about one server; what could not be found out is None or empty.

    Attributes:
        url: Its address.
        absent: It does not answer ("unreachable") or not yet ("loading"): nothing else is known.
        failures: What the core refused.
        cautions: What the core warned of.
        engine: Name of the dialect.
        version: Of the engine.
        model: As served.
        source: What was launched, a repository or a folder, if the server tells.
        task: What it is used for.
        family: Id of its family in the catalogue.
        repo: Its repository, if the name tells.
        limit: Tokens that one input may have.
        model_limit: Tokens that the model itself takes, by the catalogue.
        model_width: Its native width, by the catalogue.
        model_pooling: How its authors pool, by the catalogue.
        takes_instruction: Whether its prompt has a place for one.
        instruction: The default one.
        access: Routes of the server that exist, and whether they want a key.
        has_key: Whether we were given one.
        embedding: If it embeds.
        reranking: If it reranks.
        latency: Seconds of one query, warm.
        separates: By language.
    """

    url: str
    absent: Literal["unreachable", "loading"] | None = None
    failures: tuple[Failure, ...] = ()
    cautions: tuple[str, ...] = ()
    engine: str = ""
    version: str = ""
    model: str = ""
    source: str = ""
    task: Task | None = None
    family: str | None = None
    repo: str | None = None
    limit: int | None = None
    model_limit: int | None = None
    model_width: int | None = None
    model_pooling: str | None = None
    takes_instruction: bool | None = None
    instruction: str | None = None
    access: Mapping[str, Access] = field(default_factory=dict)
    has_key: bool = False
    embedding: Embedding | None = None
    reranking: Reranking | None = None
    latency: float | None = None
    separates: Mapping[str, Separation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is worth saying.

    Attributes:
        severity: "problem": results are wrong, or there are none. "warning": they may be. "note": good to know.
        what: What was seen.
        why: Why it matters.
        cure: What mends it; a command where there is one.
    """

    severity: Severity
    what: str
    why: str = ""
    cure: str = ""
