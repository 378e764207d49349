"""The questions that a checkup asks, all of them small: some forty requests, none of which changes anything.

The core answers most: an `Embedder` or a `Reranker` is used as anybody would use it. What the core keeps to itself (a
vector before it is normalised, what other clients get from the server's own rerank route, who may call without a key)
is asked for with its own `Call`s. SGLang's `/server_info`, which shows the server's key, is never asked.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any, get_args

import numpy as np

from ragpair import catalog, resolve
from ragpair.catalog import Match, RerankerFamily
from ragpair.dialects import DIALECTS, detect
from ragpair.dialects.base import Dialect, Served, Task, by_index, field, object_of, read_number, to_scale
from ragpair.doctor.pairs import PAIRS
from ragpair.doctor.values import Access, Ask, Checkup, Embedding, Failure, Reranking, Separation, Template
from ragpair.drivers import SyncDriver
from ragpair.endpoint import Endpoint, parse_base_urls
from ragpair.errors import (
    EndpointError,
    EndpointOverloaded,
    EndpointUnreachable,
    MalformedReply,
    RagpairError,
    RagpairWarning,
)
from ragpair.pair import Embedder, Reranker
from ragpair.retry import RetryPolicy
from ragpair.wire import Call, send

_PROBE = ("Where is my parcel?", "You can track your parcel with the number in the mail.", "Where is my parcel?")
_PAUSE = 1.0  # seconds between two looks at a server that is still starting
_TIMED = 3  # queries, after a warm-up; the middle one is told

# Answers 503 while the model is loading, or when the engine behind the HTTP server has died.
_READY = {"vllm": "/health", "sglang": "/ready", "llamacpp": "/health"}

# Asked without a key and with an empty body: a guarded route says 401 before it reads the body, an open one 400.
_DOORS: dict[str, tuple[tuple[str, bool], ...]] = {
    "vllm": (
        ("/v1/models", False),
        ("/v1/embeddings", True),
        ("/v1/score", True),
        ("/rerank", True),
        ("/classify", True),
        ("/pooling", True),
        ("/tokenize", True),
    ),
    "sglang": (("/v1/models", False), ("/v1/embeddings", True), ("/v1/rerank", True), ("/v1/score", True)),
    "ollama": (("/api/tags", False), ("/api/embed", True)),
    "llamacpp": (("/v1/models", False), ("/v1/embeddings", True), ("/v1/rerank", True), ("/completion", True)),
    "local": (),
}
_ABSENT = (404, 405, 501)

_POOLING_OF_GGUF = {1: "mean", 2: "cls", 3: "last"}
_SAME_SCORE = 1e-3
# A prompt adds dozens of tokens to a pair; special tokens and a merge at the seam are a few.
_UNPROMPTED_TOKENS = 6


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
        known["access"] = _access(endpoint, dialect)
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
                        embedder.embed_documents(_PROBE[:1])
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
    version = served.version or _build(driver, dialect)
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
            yield from _embedding_facts(driver, dialect, served, embedder)
    else:
        with Reranker(**settings) as reranker:
            yield from _reranking_facts(driver, served, match, reranker)


def _build(driver: SyncDriver, dialect: Dialect) -> str:
    """llama.cpp numbers its builds where the core has no need to look."""
    if dialect.name != "llamacpp":
        return ""
    reply = driver.run(send(Call("/props")))
    return str(field(reply, "build_info") or "") if reply.ok else ""


# --- embedding -------------------------------------------------------------------------------------------------------


def _embedding_facts(
    driver: SyncDriver, dialect: Dialect, served: Served, embedder: Embedder
) -> Iterator[dict[str, Any]]:
    said = embedder.describe()
    reply = driver.run(send(dialect.embed_call(served, _PROBE, dimensions=None, truncate=False)))
    if not reply.ok:
        raise dialect.refusal(reply, served, "embed")
    vectors = dialect.read_embeddings(reply, len(_PROBE))
    yield {
        "embedding": Embedding(
            vectors, _pooling(driver, dialect, served), said["query_prompt"], said["document_prompt"]
        )
    }
    yield {"separates": {language: _retrieves(embedder, pairs) for language, pairs in PAIRS.items()}}
    yield {"latency": _time(lambda: embedder.embed_queries(_PROBE[:1]))}


def _pooling(driver: SyncDriver, dialect: Dialect, served: Served) -> str | None:
    if dialect.name != "ollama":
        return served.pooling if served.pooling in get_args(catalog.Pooling) else None
    reply = driver.run(send(Call("/api/show", {"model": served.model})))
    info = object_of(reply.json(), "model_info") if reply.ok else {}
    return _POOLING_OF_GGUF.get(info.get(f"{served.architecture}.pooling_type", 0))


def _retrieves(embedder: Embedder, pairs: Sequence[tuple[str, str]]) -> Separation:
    """For how many questions their own answer is the nearest of all."""
    questions = embedder.embed_queries([question for question, _ in pairs])
    answers = embedder.embed_documents([answer for _, answer in pairs])
    nearness = questions @ answers.T
    own = np.diagonal(nearness).copy()
    np.fill_diagonal(nearness, -np.inf)
    return Separation(int((own > nearness.max(axis=1)).sum()), len(pairs))


# --- reranking -------------------------------------------------------------------------------------------------------


def _reranking_facts(
    driver: SyncDriver, served: Served, match: Match[RerankerFamily] | None, reranker: Reranker
) -> Iterator[dict[str, Any]]:
    said = reranker.describe()
    (query, answer), (_, other) = PAIRS["en"][:2]
    scores = reranker.score(query, [answer, other])
    yield {"reranking": Reranking(said["route"], said["score_kind"], tuple(map(float, scores)))}
    if match is not None and match.family.framing == "frame":
        template, own = _template(driver, served, query, (answer, other), scores)
        yield {
            "reranking": Reranking(said["route"], said["score_kind"], tuple(map(float, scores)), template, own),
        }
    yield {"separates": {language: _prefers(reranker, pairs) for language, pairs in PAIRS.items()}}
    yield {"latency": _time(lambda: reranker.score(query, [answer]))}


def _prefers(reranker: Reranker, pairs: Sequence[tuple[str, str]]) -> Separation:
    """For how many questions their own answer scores higher than that of the next one."""
    others = [answer for _, answer in (*pairs[1:], pairs[0])]

    def prefers(pair: tuple[tuple[str, str], str]) -> bool:
        (question, answer), other = pair
        own, foreign = reranker.score(question, [answer, other])
        return bool(own > foreign)

    with ThreadPoolExecutor(4) as pool:
        return Separation(sum(pool.map(prefers, zip(pairs, others, strict=True))), len(pairs))


def _template(
    driver: SyncDriver, served: Served, query: str, documents: Sequence[str], scores: Any
) -> tuple[Template | None, tuple[float, ...]]:
    """What the server's own rerank route, which other clients call, makes of an LLM reranker's prompt."""
    body: dict[str, Any]
    if served.engine == "vllm":
        body = {"model": served.model, "text_1": query, "text_2": list(documents)}
        reply = driver.run(send(Call("/v1/score", body)))
        rows = field(reply, "data") if reply.ok else None
    elif served.engine == "sglang":
        body = {"query": query, "documents": list(documents), "return_documents": False}
        reply = driver.run(send(Call("/v1/rerank", body)))
        if reply.status == 400:  # it has no reranker's template, and says so in words that mislead
            return "none", ()
        rows = reply.json() if reply.ok else None
    else:
        return None, ()
    try:
        own = to_scale((row.get("score") for row in by_index(rows, len(documents), reply)), reply)
    except MalformedReply:
        return None, ()
    if np.abs(own - scores).max() <= _SAME_SCORE:
        return "card", tuple(map(float, own))
    used = object_of(reply.json(), "usage").get("prompt_tokens") if served.engine == "vllm" else None
    if isinstance(used, int):
        counts = [driver.run(send(Call("/tokenize", {"model": served.model, "prompt": query + d}))) for d in documents]
        bare = sum(read_number(count, "count") for count in counts if count.ok)
        if all(count.ok for count in counts) and used <= bare + _UNPROMPTED_TOKENS * len(documents):
            return "none", tuple(map(float, own))
    return "other", tuple(map(float, own))


# --- access and latency ----------------------------------------------------------------------------------------------


def _access(endpoint: Endpoint, dialect: Dialect) -> dict[str, Access]:
    """Which routes anybody may call who reaches the port."""
    stranger = SyncDriver(Endpoint(endpoint.base_urls, timeout=endpoint.timeout, retry=endpoint.retry))
    found: dict[str, Access] = {}
    try:
        for path, posts in _DOORS[dialect.name]:
            status = stranger.run(send(Call(path, {} if posts else None))).status
            if status in (401, 403):
                found[path] = "key"
            elif status not in _ABSENT:
                found[path] = "open"
    except EndpointError:  # a stranger may be cut off; then this is all that is known
        pass
    finally:
        stranger.close()
    return found


def _time(query: Any) -> float:
    query()
    taken = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        query()
        taken.append(time.perf_counter() - start)
    return median(taken)
