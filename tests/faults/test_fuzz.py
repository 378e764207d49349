"""Replies that nobody would think of: whatever a server sends, what leaves is right in shape, or an error of ours.

Recorded replies are mutated, and others are made up. It goes on for RAGPAIR_FUZZ_SECONDS, a few by default, shared
between the tests; each round has a seed of its own, so that a longer run begins as a shorter one and goes further.
"""

import base64
import copy
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import orjson
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ragpair import Embedder, RagpairError, RagpairWarning, Reranker, catalog
from ragpair.dialects import DIALECTS
from ragpair.dialects.base import ScorePlan, Served
from ragpair.prompts import frame
from ragpair.testing.engines import ENGINES
from ragpair.wire import Reply

from .cases import QUERY, TEXTS, WAYS, Way

SECONDS = float(os.environ.get("RAGPAIR_FUZZ_SECONDS", "10"))
EXAMPLES = 50  # a round
PHASES = (Phase.generate, Phase.shrink)
HEALTHY = list(HealthCheck)  # this test is as slow as it is told to be
CASSETTES = Path(__file__).parents[1] / "wire" / "cassettes"
HTTP = ("vllm", "sglang", "ollama", "llamacpp")

FIELDS = [
    *("data", "results", "scores", "embeddings", "embedding", "index", "score", "relevance_score", "probs"),
    *("num_classes", "logprobs", "top_logprobs", "completion_probabilities", "token", "logprob", "tokens", "count"),
    *("id", "name", "root", "owned_by", "aliases", "max_model_len", "meta", "n_ctx", "version", "models", "error"),
    *("message", "detail", "usage", "prompt_tokens", "answers", "relevant", "noul", "x_label_mass", "architecture"),
    *("architectures", "embedding", "task", "cache", "pooling", "model_info", "capabilities", "parameters"),
]
# What tells lengths and causes in error messages.
WORDS = [
    "This model's maximum context length is 512 tokens. However, you requested 600",
    "The input (512 tokens) is longer than the model's context length (512 tokens).",
    "request (9 tokens) exceeds the available context size (8 tokens)",
    "input is too large to process",
    '{"error":{"message":"{"}}',
    "does not support",
    "9" * 5000,
    "This model's maximum context length is " + "9" * 5000,
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-1, 4),
    st.floats(width=64),
    st.sampled_from(WORDS),
    st.text(max_size=8),
    st.binary(max_size=24).map(lambda data: base64.b64encode(data).decode()),
    st.lists(st.floats(width=32), max_size=8).map(lambda floats: base64.b64encode(np.array(floats, "<f4")).decode()),
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=20,
)


def recorded(engine: str) -> list[bytes]:
    """The bodies of all replies in the cassettes of an engine."""
    files = sorted(CASSETTES.glob(f"{engine}*/*.yaml"))
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    conversations = [yaml.load(path.read_text(), loader)["interactions"] for path in files]
    bodies = (one["response"]["body"]["string"] for conversation in conversations for one in conversation)
    known = {body if isinstance(body, bytes) else body.encode() for body in bodies}
    return sorted((body for body in known if len(body) < 6000), key=len)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container in a JSON value, with each of its keys; of a long list, the first few."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(min(len(value), 4)))
    else:
        return []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


Step = tuple[int, str, Any, str]
steps = st.lists(
    st.tuples(st.integers(0, 999), st.sampled_from(["put", "put", "delete", "double"]), trees, st.sampled_from(FIELDS)),
    min_size=1,
    max_size=3,
)
# What becomes of a reply: changes in a few places, another end, or another reply. Drawn before it is known, since it
# may be asked for in any thread.
changes = st.one_of(
    steps.map(lambda steps: lambda body: edited(body, steps)),
    steps.map(lambda steps: lambda body: edited(body, steps)),
    st.floats(0, 1).map(lambda part: lambda body: body[: int(part * len(body))]),
    trees.map(lambda tree: lambda body: dump(tree)),
    st.binary(max_size=64).map(lambda data: lambda body: data),
)


def edited(body: bytes, steps: list[Step]) -> bytes:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    for number, what, tree, field in steps:
        found = places(value)
        if not found:
            break
        container, key = found[number % len(found)]
        if what == "put":
            container[key] = copy.deepcopy(tree)
        elif what == "delete":
            del container[key]
        elif isinstance(container, list):
            container.append(container[key])
        else:
            container[field] = container[key]
    return dump(value)


def dump(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def replies(engine: str) -> st.SearchStrategy[bytes]:
    bodies = recorded(engine)
    real = st.integers(0, len(bodies) - 1).map(lambda number: bodies[number])  # sampled_from would show them all
    return st.builds(lambda body, change: change(body), real, changes)


def fuzz(check: Callable[..., None], *strategies: st.SearchStrategy[Any], share: float) -> None:
    """Runs the check in rounds until its share of the time is over."""
    until = time.monotonic() + SECONDS * share
    number = 0
    while number == 0 or time.monotonic() < until:
        options = settings(max_examples=EXAMPLES, database=None, suppress_health_check=HEALTHY, phases=PHASES)
        seed(number)(options(given(*strategies)(check)))()
        number += 1


# --- what reads a reply ---


def plans(engine: str) -> list[ScorePlan]:
    """Each way in which the dialect reads scores."""
    qwen3 = frame(catalog.family("qwen3-reranker", "reranker"), None)
    yes = {"answers": ("yes", "no"), "labels": (1, 2)}
    routes = {"vllm": ["score", "classify"], "sglang": ["rerank", "answers"], "llamacpp": ["rerank", "completion"]}
    wanted = [(route, None if route in ("score", "rerank") else qwen3) for route in routes.get(engine, ["generate"])]
    return [ScorePlan(route, "logit", own, **yes) for route, own in [*wanted, ("systemone", None)]]


@pytest.mark.parametrize("engine", HTTP)
def test_readers(engine):
    dialect = DIALECTS[engine]
    served = Served(engine, "m")

    def check(body, status, expected):
        reply = Reply(status, body, "http://server.invalid", "/path", {"content-type": "application/json"})

        def ours(read, *args):
            try:
                return read(*args)
            except RagpairError:
                return None

        vectors = ours(dialect.read_embeddings, reply, expected)
        if vectors is not None:
            assert (vectors.ndim, len(vectors), vectors.dtype) == (2, expected, np.float32)
        for plan in plans(engine):
            scores = ours(dialect.read_scores, plan, reply, expected if plan.route in COUNTED else 1)
            if scores is not None:
                assert scores.shape == (expected if plan.route in COUNTED else 1,)
                assert scores.dtype == np.float64
        if engine != "ollama":  # which does not count
            count = ours(dialect.read_count, reply)
            assert count is None or isinstance(count, int)
        long = ours(dialect.too_long, reply)
        assert long is None or all(n is None or isinstance(n, int) for n in (long.length, long.limit))
        for task in ("embed", "rerank"):
            assert isinstance(dialect.refusal(reply, served, task), RagpairError)

    fuzz(check, replies(engine), st.sampled_from([200, 400, 401, 404, 500, 501, 503]), st.integers(1, 3), share=0.1)


COUNTED = ("score", "classify", "rerank", "answers", "completion")


# --- whole conversations ---


@pytest.fixture
def at_once(monkeypatch, waits):
    """Requests are answered in this process: `at_once(answer)`, with what makes a response of a request."""

    def start(answer):
        return patch.object(httpx.HTTPTransport, "handle_request", lambda self, request: answer(request))

    return start


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_conversations(at_once, way: Way):
    right = ENGINES[way.engine](None, way.task, 8, 512, None)

    def check(wrong, named):
        number = 0

        def answer(request):
            nonlocal number
            body = orjson.loads(request.content) if request.content else None
            came = right.answer(request.method, request.url.path, body)
            content = came.body.encode() if isinstance(came.body, str) else dump(came.body)
            content = wrong.get(number, bytes)(content)
            number += 1
            return httpx.Response(came.status, headers={"content-type": came.content_type}, content=content)

        options = {"engine": way.engine} if named else {}
        with at_once(answer), warnings.catch_warnings():
            warnings.simplefilter("ignore", RagpairWarning)
            try:
                if way.task == "embed":
                    with Embedder("http://server.invalid", **options) as embedder:
                        result = embedder.embed_documents(TEXTS)
                    assert np.allclose(np.linalg.norm(result, axis=1), 1, atol=1e-3)
                else:
                    with Reranker("http://server.invalid", max_concurrency=1, **options) as reranker:
                        result = reranker.score(QUERY, TEXTS)
            except RagpairError:
                pass
            else:
                assert len(result) == len(TEXTS)
                assert np.isfinite(result).all()

    wrong = st.dictionaries(st.integers(0, 8), changes, min_size=1, max_size=2)
    fuzz(check, wrong, st.booleans(), share=0.6 / len(WAYS))
