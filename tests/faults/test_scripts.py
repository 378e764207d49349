"""Any faults, in any order, at any server, over a thousand texts: the vectors are right, or the call fails.

What is never seen is a vector that is lost, doubled, or another text's.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ragpair import Embedder, EndpointError
from ragpair.testing import FakeServer, Fault, edits

from .cases import DIMS, EMBED, Way

TEXTS = [f"red {n}" for n in range(900)] + [f"red {n}" for n in range(0, 900, 9)]  # 100 of them twice
BATCH_SIZES = [1000, 128, 100, 33]

FATAL = [
    Fault(400),
    Fault.death(),
    Fault.death(None),
    Fault.garbage(b"[]"),
    Fault.page(),
    Fault.redirect("http://elsewhere.invalid/"),
    Fault.edit(edits.nan),
    Fault.edit(edits.narrow),
    Fault.edit(edits.no_index),
    Fault.edit(edits.null),
    Fault.edit(edits.one_missing),
    Fault.edit(edits.one_too_many),
    Fault.edit(edits.same_index),
    Fault.edit(edits.truncated),
]
MENDED = [
    Fault(),
    *(Fault(status) for status in (408, 429, 500, 502, 503, 504)),
    Fault(503, headers={"Retry-After": "1"}),
    Fault.cut(),
    Fault.cut(half=True),
    Fault.drop(),
    Fault.drop(half=True),
    Fault.gzipped(),
    Fault.trickle(0.001),
]
SHUFFLED = Fault.edit(edits.shuffled)  # not on Ollama, whose vectors have no index: there nobody can see it

# Few are fatal; else no call would come to its end.
scripts = st.lists(
    st.one_of(st.just(SHUFFLED), st.sampled_from(MENDED), st.sampled_from(MENDED), st.sampled_from(FATAL)), max_size=12
)


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[Way, list[FakeServer]]]:
    with ExitStack() as running:
        yield {way: [running.enter_context(way.server()) for _ in range(3)] for way in EMBED}


@pytest.mark.filterwarnings("ignore::ragpair.RagpairWarning")
@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # `waits` waits for nobody
    database=None,
)
@given(
    way=st.sampled_from(EMBED),
    script=st.lists(scripts, min_size=1, max_size=3),
    batch_size=st.sampled_from(BATCH_SIZES),
)
def test_right_or_an_error(pools, waits, awaited, way, script, batch_size):
    servers = pools[way][: len(script)]
    for server in servers:
        server.stop()  # with all that is still in work from before
        server.clear()
        server.start()
    one = Embedder([server.url for server in servers], batch_size=batch_size)
    with one:
        one.embed_documents(["warm up"])
        for server, faults in zip(servers, script, strict=True):
            server.fail(*(fault for fault in faults if way.engine != "ollama" or fault != SHUFFLED))
        try:
            vectors = asyncio.run(one.aembed_documents(TEXTS)) if awaited else one.embed_documents(TEXTS)
        except EndpointError as error:
            event(type(error).__name__)
            if error.endpoint not in [server.url for server in servers]:
                raise
        else:
            event("right")
            assert (vectors.shape, vectors.dtype) == ((1000, DIMS), np.float32)
            np.testing.assert_allclose(vectors, way.expected(TEXTS), atol=1e-6)
