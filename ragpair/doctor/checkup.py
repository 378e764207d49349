"""A checkup: who answers, what the model is for, and what is found when it is used for that.

The core answers most: an `Embedder` or a `Reranker` is used as anybody would use it, and what it warns of or refuses is
part of the checkup. What the core keeps to itself is asked by the `probes`. All in all some forty small requests, none
of which changes anything.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ragpair import Embedder, Reranker, catalog, resolve
from ragpair.catalog import Match
from ragpair.dialects import DIALECTS, detect
from ragpair.dialects.base import Dialect, Task, field
from ragpair.doctor import probes
from ragpair.doctor.values import Ask, Checkup, Failure
from ragpair.drivers import SyncDriver
from ragpair.endpoint import Endpoint, parse_base_urls
from ragpair.errors import EndpointOverloaded, EndpointUnreachable, RagpairError, RagpairWarning
from ragpair.retry import RetryPolicy
from ragpair.wire import Call, send

_PAUSE = 1.0  # seconds between two looks at a server that is still starting

# Answers 503 while the model is loading, or when the engine behind the HTTP server has died.
_READY = {"vllm": "/health", "sglang": "/ready", "llamacpp": "/health"}


def examine(url: str, ask: Ask) -> Checkup:
    """All that can be found out about one server; what goes wrong meanwhile is part of it.

    Raises:
        ConfigurationError: The address or an option cannot be; nothing was asked.
    """
    endpoint = Endpoint(
        parse_base_urls(url), api_key=ask.api_key, timeout=ask.timeout, retry=RetryPolicy(max_retries=0)
    )
    known: dict[str, Any] = {"url": endpoint.shown, "has_key": ask.api_key is not None}
    driver = SyncDriver(endpoint)
    try:
        dialect = _await(driver, ask)
        known["engine"] = dialect.name
        known["access"] = probes.access(endpoint, dialect)
        names = _names(driver, dialect)
        known["source"] = names[0] if names else ""
        match = _match(names, ask)
        if match is not None:
            known |= {"family": match.family.id, "repo": match.repo}
        attempts: list[dict[str, Any]] = []
        for task in _tasks(match, ask):
            attempts.append(_attempt(driver, dialect, task, ask))
            if not attempts[-1]["failures"]:
                return Checkup(**{**known, **attempts[-1]})
        failures = tuple(failure for attempt in attempts for failure in attempt["failures"])
        _, furthest = max((len(attempt), number) for number, attempt in enumerate(attempts))
        return Checkup(**{**known, **attempts[furthest], "failures": failures})
    except (EndpointUnreachable, EndpointOverloaded) as exc:
        known["absent"] = "unreachable" if isinstance(exc, EndpointUnreachable) else "loading"
        return Checkup(**known, failures=(Failure(exc),))
    except RagpairError as exc:
        return Checkup(**known, failures=(Failure(exc),))
    finally:
        driver.close()


def _attempt(driver: SyncDriver, dialect: Dialect, task: Task, ask: Ask) -> dict[str, Any]:
    """What is found when the model is used for this task, up to the first refusal."""
    known: dict[str, Any] = {"task": task, "failures": ()}
    with _listening() as cautions:
        try:
            for facts in _facts(driver, dialect, task, ask):
                known |= facts
        except RagpairError as exc:
            known["failures"] = (Failure(exc, task),)
    return {**known, "cautions": tuple(dict.fromkeys(cautions))}


def task_of(url: str, ask: Ask) -> Task:
    """What the model at this address is for: the first task that the core is willing to do with it.

    Raises:
        RagpairError: None; the core's reason for the likelier one.
    """
    endpoint = Endpoint(parse_base_urls(url), api_key=ask.api_key, timeout=ask.timeout)
    driver = SyncDriver(endpoint)
    refused: RagpairError | None = None
    try:
        for task in _tasks(_match(_names(driver, _await(driver, ask)), ask), ask):
            try:
                if task == "embed":
                    with Embedder(**_settings(endpoint, ask)) as embedder:
                        embedder.embed_documents(probes.TEXTS[:1])
                else:
                    with Reranker(**_settings(endpoint, ask), scores="raw") as reranker:
                        reranker.describe()
                return task
            except RagpairError as exc:
                refused = exc
    finally:
        driver.close()
    assert refused is not None
    raise refused


def _await(driver: SyncDriver, ask: Ask) -> Dialect:
    """The engine, as soon as it answers and its model is loaded."""
    until = time.monotonic() + ask.wait
    while True:
        try:
            return _engine(driver, ask)
        except (EndpointUnreachable, EndpointOverloaded):
            if time.monotonic() >= until:
                raise
        time.sleep(_PAUSE)


def _engine(driver: SyncDriver, ask: Ask) -> Dialect:
    if driver.endpoint.is_local:
        return DIALECTS["local"]
    dialect = DIALECTS[ask.engine] if ask.engine != "auto" else driver.run(detect())
    if dialect.name in _READY:
        reply = driver.run(send(Call(_READY[dialect.name])))
        if reply.status == 503:
            raise EndpointOverloaded(
                f"{reply.endpoint} answers, but {reply.path} says that its model is not ready (503): it is still "
                "loading, or the engine behind it has died, which its log tells.",
                endpoint=reply.endpoint,
                status=reply.status,
            )
    return dialect


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What the core warns of, in place of a warning."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # others are about our own texts: Chinese to an English model
        try:
            yield heard
        finally:
            heard += [str(one.message) for one in caught if issubclass(one.category, RagpairWarning)]


def _match(names: Sequence[str], ask: Ask) -> Match[Any] | None:
    """What the catalogue knows of the model, by what the user says or by its names, before more is asked."""
    if ask.family is None:
        return None
    known = catalog.find(ask.model, *names)
    if ask.family == "auto":
        return known
    family = catalog.family(ask.family)
    return Match(family, known.model if known is not None and known.family.id == family.id else None)


def _tasks(match: Match[Any] | None, ask: Ask) -> tuple[Task, ...]:
    """What to try, the likelier first; only one where the user or the catalogue knows."""
    if ask.expect is not None:
        return (ask.expect,)
    if match is not None:
        return ("rerank",) if match.family.kind == "reranker" else ("embed",)
    return ("embed", "rerank")


def _names(driver: SyncDriver, dialect: Dialect) -> tuple[str, ...]:
    """What the only model goes by; nothing if there are several."""
    if dialect.name == "local":
        return ()
    rows = field(driver.run(send(Call("/v1/models"))), "data")
    cards = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return tuple(str(cards[0][key]) for key in ("root", "id") if cards[0].get(key)) if len(cards) == 1 else ()


def _settings(endpoint: Endpoint, ask: Ask) -> dict[str, Any]:
    return {
        "base_url": endpoint.base_urls,
        "model": ask.model,
        "family": ask.family,
        "engine": ask.engine,
        "api_key": ask.api_key,
        "timeout": ask.timeout,
        "max_retries": 1,
    }


def _facts(driver: SyncDriver, dialect: Dialect, task: Task, ask: Ask) -> Iterator[dict[str, Any]]:
    """What is known of a model and its task, in the order in which it is found out, up to the first refusal."""
    served = driver.run(dialect.inspect(ask.model, task))
    version = served.version or probes.build(driver, dialect)
    yield {"version": version, "model": served.model, "limit": served.limit}
    if served.names:
        yield {"source": served.names[0]}
    match: Match[Any] | None = (
        resolve.embedding_match(ask.family, ask.model, served)
        if task == "embed"
        else resolve.reranker_match(ask.family, ask.model, served)
    )
    if match is not None:
        yield {
            "family": match.family.id,
            "repo": match.repo,
            "model_limit": match.max_tokens,
            "takes_instruction": match.family.takes_instruction,
            "instruction": match.family.instruction,
        }
    settings = _settings(driver.endpoint, ask)
    if task == "embed":
        if match is not None:
            yield {"model_width": match.dims, "model_pooling": match.family.pooling}
        with Embedder(**settings) as embedder:
            yield from probes.embedding_facts(driver, dialect, served, embedder)
    else:
        with Reranker(**settings) as reranker:
            yield from probes.reranking_facts(driver, served, match, reranker)
