"""What goes wrong, and what must come of it: the table behind the matrix.

A fault that passes is mended by asking again: once, nobody sees it; with a healthy replica, never; if it lasts, it is
an error that says so, after as many tries as the policy allows. A final one is an error at once, since the same request
would meet the same end; or one that may be the fault of one text, so that the others are worth another try: once, it
may be seen or not. A harmless one is none to a careful client.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ragpair import (
    EndpointError,
    EndpointOverloaded,
    EndpointRejected,
    EndpointUnreachable,
    MalformedReply,
    RagpairError,
)
from ragpair.testing import FakeServer, Fault, edits, model

DIMS = 8
QUERY = "red green blue grey"
# Of different relevance. What is counted afterwards is asked about the others: of those before, a request that was
# cancelled may arrive late.
TEXTS = ["red green blue", "white", "red green"]
OTHERS = ["pink", "violet red green", "violet red"]


@dataclass(frozen=True)
class Way:
    """One engine's way to vectors or scores."""

    engine: Literal["vllm", "sglang", "ollama", "llamacpp"]
    task: Literal["embed", "rerank", "answers"]

    def __str__(self) -> str:
        return f"{self.engine}-{self.task}"

    def server(self, **options: Any) -> FakeServer:
        """A server that is not running yet."""
        return FakeServer(self.engine, task=self.task, dims=DIMS, **options)

    def expected(self, texts: list[str]) -> np.ndarray:
        """The right answer for these texts."""
        if self.task == "embed":
            return np.array([model.embed(text, DIMS) for text in texts])
        return np.array([model.sigmoid(model.logit(QUERY, text)) for text in texts])

    def arguments(self, texts: list[str]) -> tuple[Any, ...]:
        """What to call an Embedder or a Reranker with."""
        return ("embed_documents", texts) if self.task == "embed" else ("score", QUERY, texts)


EMBED = [Way("vllm", "embed"), Way("sglang", "embed"), Way("ollama", "embed"), Way("llamacpp", "embed")]
SCORE = [
    Way("vllm", "rerank"),
    Way("vllm", "answers"),
    Way("sglang", "rerank"),
    Way("sglang", "answers"),
    Way("ollama", "answers"),
    Way("llamacpp", "rerank"),
    Way("llamacpp", "answers"),
]
WAYS = EMBED + SCORE
# One of each engine, where what is shown does not depend on the route.
ENGINE_WAYS = [
    *EMBED,
    Way("vllm", "rerank"),
    Way("sglang", "rerank"),
    Way("ollama", "answers"),
    Way("llamacpp", "rerank"),
]
# Rows without an index can only be counted.
INDEXED = [way for way in WAYS if way.engine != "ollama" and way != Way("sglang", "answers")]
# Faults that take time do so in the drivers, which know no engines.
SLOW = [Way("vllm", "embed"), Way("sglang", "rerank")]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: What it is called.
        happen: Makes it happen to a server; the number is how often, None is from here on.
        end: What becomes of it.
        error: What it is if it lasts, or at once if it is final.
        words: A regular expression that the error's message matches.
        tries: How often one request may be made in all, however many servers there are.
        each: How often to each server, where the work was not begun and others may be asked as well.
        deadly: It may have been the request that killed the server; SGLang is known to die of some.
        ways: Where it can happen.
        options: Of the client.
        lasting: It cannot happen once only.
    """

    name: str
    happen: Callable[[FakeServer, int | None], None]
    end: Literal["passes", "final", "may be one text's", "harmless"]
    error: type[RagpairError] = RagpairError
    words: str = ""
    tries: int = 1
    each: int | None = None
    deadly: bool = False
    ways: list[Way] = field(default_factory=lambda: WAYS)
    options: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False

    def most(self, way: Way, servers: int) -> int:
        """How often one request may be made."""
        if way.engine == "sglang" and self.deadly:
            return 2
        return self.tries if self.each is None else self.each * servers


def _fault(make: Callable[..., Fault], *args: Any, **kwargs: Any) -> Callable[[FakeServer, int | None], None]:
    return lambda server, times: server.fail(make(*args, times=times, **kwargs))


def _edit(change: Callable[[Any], Any]) -> Callable[[FakeServer, int | None], None]:
    return _fault(Fault.edit, change)


_DROPPED = {
    "end": "passes",
    "error": EndpointUnreachable,
    "words": r"dropped.*died on this input|refused: it was away.*Is the server running",
    "tries": 4,
    "deadly": True,
}
_BUSY = {"end": "passes", "error": EndpointOverloaded, "words": "overloaded or still starting", "tries": 4, "each": 4}
_REFUSED = {"end": "passes", "error": EndpointUnreachable, "words": r"refused.*Is the server running", "tries": 4}
_TIMEOUT = {"end": "passes", "error": EndpointUnreachable, "words": r"timeout.*raise timeout=", "tries": 2}
_KEY = {"end": "final", "error": EndpointRejected, "words": r"answered 401.*pass api_key="}
_MALFORMED = {"end": "final", "error": MalformedReply}
_COUNT = r"\d (results|embeddings)? ?(with index \d )?for \d inputs|\d rows of scores for 3|no token likelihoods"
_SOON = {"Retry-After": "1"}

CASES = [
    # connections
    Case("refused", lambda server, _: server.stop(), **_REFUSED, each=4, lasting=True),
    Case("dropped", _fault(Fault.drop), **_DROPPED),
    Case("dropped in the middle", _fault(Fault.drop, half=True), **_DROPPED),
    Case("reset", _fault(Fault.cut), **_DROPPED),
    Case("reset in the middle", _fault(Fault.cut, half=True), **_DROPPED),
    Case(
        "500, then death",
        _fault(Fault.death),
        "passes",
        EndpointError,
        # dropped, if it was sent at the same time as the one that killed the server
        r"refused.*Is the server running|answered 500|dropped.*died on this input",
        tries=4,
        deadly=True,
        lasting=True,
    ),
    Case(
        "silent death",
        _fault(Fault.death, None),
        "passes",
        EndpointUnreachable,
        str(_DROPPED["words"]) + "|refused.*Is the server running",
        tries=4,
        deadly=True,
        lasting=True,
    ),
    # time and size
    Case("no answer in time", _fault(Fault.delay, 20), **_TIMEOUT, ways=SLOW, options={"timeout": 0.2}),
    Case("trickle", _fault(Fault.trickle, 1), **_TIMEOUT, ways=SLOW, options={"timeout": 0.2}),
    Case("trickle in time", _fault(Fault.trickle, 0.02), "harmless", ways=SLOW),
    Case("gzip", _fault(Fault.gzipped), "harmless"),
    # statuses that pass
    Case("408", _fault(Fault, 408), **_BUSY),
    Case("429", _fault(Fault, 429), **_BUSY),
    Case("429 with Retry-After", _fault(Fault, 429, headers=_SOON), **_BUSY),
    Case("503", _fault(Fault, 503), **_BUSY),
    Case("503 with Retry-After", _fault(Fault, 503, headers=_SOON), **_BUSY),
    Case("504", _fault(Fault, 504), **_BUSY),
    Case("502 of a proxy", _fault(Fault.page, 502), **_BUSY),
    Case("500", _fault(Fault, 500), "passes", EndpointRejected, r"answered 500.*its log tells why", 2),
    # statuses that do not
    Case("400", _fault(Fault, 400), "may be one text's", EndpointRejected, "answered 400"),
    Case("401, error a string", _fault(Fault.unauthorized, "string"), **_KEY),
    Case("401, error an object", _fault(Fault.unauthorized, "object"), **_KEY),
    Case("401 in plain text", _fault(Fault.unauthorized, "text"), **_KEY),
    Case("401 as a web page", _fault(Fault.page, 401), **_KEY),
    Case("404", _fault(Fault, 404), "final", EndpointRejected, "answered 404"),
    Case("501", _fault(Fault, 501), "final", EndpointRejected, "answered 501"),
    Case(
        "redirect",
        _fault(Fault.redirect, "http://elsewhere.invalid/x"),
        "final",
        EndpointRejected,
        r"redirects to 'http://elsewhere.invalid/x'.*final address as base_url",
    ),
    # replies that are none
    Case("web page", _fault(Fault.page), **_MALFORMED, words="Sign in.*not of a proxy or a web page"),
    Case("empty", _fault(Fault.garbage, b""), **_MALFORMED, words="not JSON"),
    Case("truncated JSON", _edit(edits.truncated), **_MALFORMED, words="not JSON"),
    Case(
        "an error in a 200",
        _edit(lambda _: {"error": {"message": "oh no"}}),
        **_MALFORMED,
        words=r"answered 200 with an error: oh no\. .*look at its log",
    ),
    Case("one missing", _edit(edits.one_missing), **_MALFORMED, words=_COUNT),
    Case(
        "one too many",
        _edit(edits.one_too_many),
        **_MALFORMED,
        words=_COUNT,
        ways=[way for way in WAYS if way != Way("ollama", "answers")],
    ),
    Case("shuffled", _edit(edits.shuffled), "harmless", ways=INDEXED),
    Case("no index", _edit(edits.no_index), **_MALFORMED, words="index None", ways=INDEXED),
    Case("same index", _edit(edits.same_index), **_MALFORMED, words="two results with index", ways=INDEXED),
    Case("NaN", _edit(edits.nan), **_MALFORMED, words="(NaN|likelihood that is null).*bfloat16"),
    Case("null", _edit(edits.null), **_MALFORMED, words="null.*bfloat16"),
    Case("narrow", _edit(edits.narrow), **_MALFORMED, words=r"different widths: \[7, 8\]", ways=EMBED),
]
