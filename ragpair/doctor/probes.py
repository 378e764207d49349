"""What the core keeps to itself, asked for with `Call`s of the doctor's own.

A vector before it is normalised, what other clients get from the server's own rerank route, who may call without a key.
SGLang's `/server_info`, which shows the server's key, is never asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, get_args

import numpy as np

from ragpair import Embedder, Reranker, catalog
from ragpair.catalog import Match, RerankerFamily
from ragpair.dialects.base import Dialect, Scale, Served, by_index, field, object_of, read_number, to_scale
from ragpair.doctor.pairs import PAIRS
from ragpair.doctor.values import Access, Embedding, Reranking, Separation, Template
from ragpair.drivers import SyncDriver
from ragpair.endpoint import Endpoint
from ragpair.errors import EndpointError, MalformedReply
from ragpair.wire import Call, Reply, send

TEXTS = ("Where is my parcel?", "You can track your parcel with the number in the mail.", "Where is my parcel?")
_TIMED = 3  # queries

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


# --- embedding -------------------------------------------------------------------------------------------------------


def embedding_facts(
    driver: SyncDriver, dialect: Dialect, served: Served, embedder: Embedder
) -> Iterator[dict[str, Any]]:
    """The vectors, whether they carry meaning, and how long one takes; each as soon as it is known."""
    said = embedder.describe()
    reply = driver.run(send(dialect.embed_call(served, TEXTS, dimensions=None, truncate=False)))
    if not reply.ok:
        raise dialect.refusal(reply, served, "embed")
    vectors = dialect.read_embeddings(reply, len(TEXTS))
    yield {
        "embedding": Embedding(
            vectors, _pooling(driver, dialect, served), said["query_prompt"], said["document_prompt"]
        )
    }
    yield {"separates": _retrieves(embedder)}
    yield {"latency": _time(lambda: embedder.embed_queries(TEXTS[:1]))}


def _pooling(driver: SyncDriver, dialect: Dialect, served: Served) -> str | None:
    if dialect.name != "ollama":
        return served.pooling if served.pooling in get_args(catalog.Pooling) else None
    reply = driver.run(send(Call("/api/show", {"model": served.model})))
    info = object_of(reply.json(), "model_info") if reply.ok else {}
    return _POOLING_OF_GGUF.get(info.get(f"{served.architecture}.pooling_type", 0))


def _retrieves(embedder: Embedder) -> dict[str, Separation]:
    """For how many questions their own answer is the nearest of all in their language."""
    questions = embedder.embed_queries([question for pairs in PAIRS.values() for question, _ in pairs])
    answers = embedder.embed_documents([answer for pairs in PAIRS.values() for _, answer in pairs])
    found, start = {}, 0
    for language, pairs in PAIRS.items():
        nearness = questions[start : start + len(pairs)] @ answers[start : start + len(pairs)].T
        own = np.diagonal(nearness).copy()
        np.fill_diagonal(nearness, -np.inf)
        found[language] = Separation(int((own > nearness.max(axis=1)).sum()), len(pairs))
        start += len(pairs)
    return found


# --- reranking -------------------------------------------------------------------------------------------------------


def reranking_facts(
    driver: SyncDriver, served: Served, match: Match[RerankerFamily] | None, reranker: Reranker
) -> Iterator[dict[str, Any]]:
    """The scores, where they come from, whether they carry meaning, and how long one takes."""
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
    driver: SyncDriver, served: Served, query: str, documents: Sequence[str], scores: Scale
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
    told: Template = "card" if np.abs(own - scores).max() <= _SAME_SCORE else "other"
    if served.engine == "vllm" and _is_bare(driver, served, [query + document for document in documents], reply):
        told = "none"
    return told, tuple(map(float, own))


def _is_bare(driver: SyncDriver, served: Served, texts: Sequence[str], reply: Reply) -> bool:
    """Whether vLLM used as many tokens as the pairs have without a prompt."""
    used = object_of(reply.json(), "usage").get("prompt_tokens")
    counts = [driver.run(send(Call("/tokenize", {"model": served.model, "prompt": text}))) for text in texts]
    if not isinstance(used, int) or not all(count.ok for count in counts):
        return False
    return used <= sum(read_number(count, "count") + _UNPROMPTED_TOKENS for count in counts)


# --- the server ----------------------------------------------------------------------------------------------


def access(endpoint: Endpoint, dialect: Dialect) -> dict[str, Access]:
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


def build(driver: SyncDriver, dialect: Dialect) -> str:
    """llama.cpp numbers its builds where the core has no need to look."""
    if dialect.name != "llamacpp":
        return ""
    reply = driver.run(send(Call("/props")))
    return str(field(reply, "build_info") or "") if reply.ok else ""


def _time(query: Callable[[], object]) -> float:
    """Seconds of the middle one of a few; the server is warm by now."""
    taken = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        query()
        taken.append(time.perf_counter() - start)
    return median(taken)
