"""Replies without end: refused at a bound, by what they announce or by what has come, before they fill the memory."""

import pytest

from ragpair import MalformedReply
from ragpair.testing import Fault

from .cases import EMBED, TEXTS

BOUND = "ragpair.drivers.exchange.MAX_REPLY_BYTES"


def padded(reply):
    reply["padding"] = "x" * 100_000


@pytest.mark.parametrize(
    "fault",
    [Fault.edit(padded), Fault.flood(), Fault.flood(gzip=True)],
    ids=["announced", "without a length", "gzipped"],
)
@pytest.mark.parametrize("way", EMBED, ids=str)
def test_a_reply_over_the_bound(serve, embedder, call, monkeypatch, way, fault):
    server = serve(way.engine)
    one = embedder(server)
    call(one, "embed_documents", TEXTS)
    server.clear()
    monkeypatch.setattr(BOUND, 50_000)
    server.fail(fault)
    with pytest.raises(MalformedReply, match=rf"^{server.url}/.*50,000 bytes") as caught:
        call(one, "embed_documents", TEXTS)
    assert caught.value.endpoint == server.url
    assert len(server.work) == 1  # it would be no shorter a second time
    assert call(one, "embed_documents", TEXTS).shape == (3, 64)


def test_the_bound_leaves_room_for_the_largest_honest_reply():
    module, name = BOUND.rsplit(".", 1)
    bound = getattr(__import__(module, fromlist=[name]), name)
    assert bound > 1024 * 8192 * len("-0.12345678901234567,")
