"""What an Embedder and a Reranker have in common: settings, drivers, and the one-time look at the server or servers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Generic, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ragpair.dialects import DIALECTS, detect
from ragpair.dialects.base import Dialect, Served, Task
from ragpair.endpoint import Endpoint, parse_base_urls
from ragpair.errors import (
    ConfigurationError,
    EndpointOverloaded,
    EndpointUnreachable,
    RagpairError,
    warn,
)
from ragpair.flows import Report
from ragpair.options import Engine, OnError, OnTooLong, OnTooLongDocument
from ragpair.pace import Pace
from ragpair.retry import RetryPolicy
from ragpair.wire import Flow, gather, pinned

Values = TypeVar("Values")

_SHOWN = ("model", "engine", "family", "instruction", "dimensions", "too_long", "scores")

# What is no string, or no mapping, would fail deep inside; the other options are checked where they are used.
_STRINGS = ("model", "family", "instruction", "query_prompt", "document_prompt")
_MAPPINGS = ("headers", "extra_body")


@dataclass(frozen=True, slots=True)
class Partial(Generic[Values]):
    """What could be had, where not all could: of `on_error="return"`.

    Attributes:
        values: Vectors [n, d] or scores [n], in the order of the texts, NaN for those that failed; or a ranking of the
            others.
        failures: What went wrong, by index of the text. Empty if nothing did.
    """

    values: Values
    failures: Mapping[int, RagpairError]


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one server.

    Attributes:
        dialect: Its engine.
        served: What it says of itself.
        sample: What it made of a probe, where there are replicas to compare it with; else empty.
        url: Which server made the sample.
    """

    dialect: Dialect
    served: Served
    sample: NDArray[Any]
    url: str = ""


class Client(ABC):
    """Settings, drivers, and the look at the server. Made by its subclasses only."""

    _task: ClassVar[Task]

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        for names, kind, what in ((_STRINGS, str, "a string"), (_MAPPINGS, Mapping, "a dict")):
            for name in names:
                if not isinstance(settings.get(name), kind | None):  # its value may be a secret
                    raise ConfigurationError(f"{name} must be {what}, not one {type(settings[name]).__name__}.")
        settings["batch_size"] = whole("batch_size", settings["batch_size"])
        engine, too_long = settings["engine"], settings["too_long"]
        if engine not in get_args(Engine):
            raise ConfigurationError(f"engine={engine!r} is not known; it is one of {', '.join(get_args(Engine))}.")
        ways = get_args(OnTooLong if self._task == "embed" else OnTooLongDocument)
        if too_long not in ways:
            raise ConfigurationError(f"too_long={too_long!r} is not known here; it is one of {', '.join(ways)}.")
        self.endpoint = Endpoint(
            parse_base_urls(settings["base_url"]),
            api_key=settings["api_key"],
            headers=dict(settings["headers"] or {}),
            timeout=settings["timeout"],
            max_concurrency=settings["max_concurrency"],
            retry=RetryPolicy(max_retries=settings["max_retries"]),
        )
        from ragpair.drivers import AsyncDriver, Replicas, SyncDriver  # late: httpx is half of an import's time

        self._replicas = Replicas(self.endpoint.base_urls)
        self._sync = SyncDriver(self.endpoint, self._replicas)
        self._async = AsyncDriver(self.endpoint, self._replicas)
        self._known: Look | None = None
        self._pace: Pace | None = None
        self._warned: set[str] = set()

    # --- the look at the server ---

    def _connect(self) -> Flow[tuple[Dialect, Served]]:
        if self._known is None:
            urls = self.endpoint.base_urls
            look = (yield from self._look_at_all(urls)) if len(urls) > 1 else (yield from self._look_at_one())
            self._caution(*look.served.cautions)
            self._known = look
        return self._known.dialect, self._known.served

    def _look_at_one(self) -> Flow[Look]:
        if self.endpoint.is_local:
            dialect = DIALECTS["local"]
        elif self._settings["engine"] == "auto":
            dialect = yield from detect()
        else:
            dialect = DIALECTS[self._settings["engine"]]
        served = yield from dialect.inspect(self._settings["model"], self._task)
        return Look(self._configured(dialect, served), served, np.empty(0))

    def _configured(self, dialect: Dialect, served: Served) -> Dialect:
        """The dialect with the user's options for it."""
        return dialect

    @abstractmethod
    def _sample(self, look: Look) -> Flow[tuple[NDArray[Any], str]]:
        """What the server makes of a probe, to compare replicas by; and which server it was."""

    def _look_closely(self) -> Flow[Look]:
        look = yield from self._look_at_one()
        return Look(look.dialect, look.served, *(yield from self._sample(look)))

    def _look_at_all(self, urls: tuple[str, ...]) -> Flow[Look]:
        """Replicas must serve one model. Those that do not answer now are looked at when they do."""

        def look_at(url: str) -> Flow[Look | RagpairError]:
            try:
                return (yield from pinned(self._look_closely(), url))
            except (EndpointUnreachable, EndpointOverloaded) as exc:
                return exc

        found = yield from gather(look_at(url) for url in urls)
        looks = {url: look for url, look in zip(urls, found, strict=True) if isinstance(look, Look)}
        if not looks:
            look = yield from self._look_closely()  # with all the patience that the policy has
            looks = {look.url: look}
        first, *others = looks
        for url in others:
            if difference := self._difference(looks[first], looks[url]):
                raise ConfigurationError(
                    f"{first} and {url} are not replicas of one model: {difference}. Mixed, they would give "
                    "incomparable results. Pass the addresses of one model only."
                )
        for url in urls:
            if url not in looks:
                self._replicas.settle(url, False)
        self._replicas.check = self._belongs
        return looks[first]

    def _belongs(self, url: str) -> Flow[bool]:
        """Whether a replica that was away serves what the others do."""
        assert self._known is not None
        try:
            look = yield from pinned(self._look_closely(), url)
        except RagpairError:
            return False
        if difference := self._difference(self._known, look):
            self._caution(f"{url} is left out: it no longer serves what the other replicas do ({difference}).")
            return False
        return True

    def _difference(self, one: Look, other: Look) -> str | None:
        """Why two servers are no replicas of one model; None if they are."""
        if one.dialect.name != other.dialect.name:
            return f"one is {one.dialect.name}, the other {other.dialect.name}"
        if one.served.model != other.served.model:
            return f"one serves {one.served.model!r}, the other {other.served.model!r}"
        if one.sample.shape != other.sample.shape:
            return f"vectors of one have {one.sample.size} numbers, of the other {other.sample.size}"
        if not self._agree(one.sample, other.sample):
            return "the same probe gives different results, so the weights or launch options differ"
        return None

    @abstractmethod
    def _agree(self, one: NDArray[Any], other: NDArray[Any]) -> bool:
        """Whether two samples of equal shape come from the same model."""

    # --- what flows are given ---

    def _common(self, dialect: Dialect, served: Served, report: Report) -> dict[str, Any]:
        if self._pace is None:
            self._pace = Pace(self._settings["batch_size"] or dialect.batch_size, len(self.endpoint.base_urls))
        return {
            "dialect": dialect,
            "served": served,
            "pace": self._pace,
            "too_long": self._settings["too_long"],
            "extra_body": self._settings["extra_body"] or {},
            "endpoint": self.endpoint.shown,
            "report": report,
        }

    def _caution(self, *cautions: str) -> None:
        for caution in cautions:
            if caution not in self._warned:
                self._warned.add(caution)
                warn(caution)

    # --- what users see ---

    @property
    def model(self) -> str | None:
        """Name of the model: as served once that is known, else as the user said it."""
        return self._known.served.model if self._known else self._settings["model"]

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


def whole(name: str, value: int | None) -> int | None:
    """The value of an option that is a whole number from 1, if it was given.

    Raises:
        ConfigurationError: It is no such number.
    """
    if value is not None and (not isinstance(value, Integral) or value < 1):
        raise ConfigurationError(f"{name} must be a whole number from 1, not {value!r}.")
    return None if value is None else int(value)


def partial(values: Values, report: Report) -> Values | Partial[Values]:
    """The values, with the failures beside them if these were kept."""
    return Partial(values, dict(sorted(report.failures.items()))) if report.keep else values


def report(on_error: OnError) -> Report:
    """Where failures go.

    Raises:
        ConfigurationError: No such way.
    """
    if on_error not in get_args(OnError):
        raise ConfigurationError(f"on_error={on_error!r} is not known; it is 'raise' or 'return'.")
    return Report(keep=on_error == "return")
