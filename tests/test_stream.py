"""Any number of texts, one after the other: in order, in bounded memory, and no faster than they are asked for."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

from ragpair import ConfigurationError, EndpointRejected, InputTooLong, InvalidInput
from ragpair.testing import Fault
from ragpair.testing.model import embed

TEXTS = [f"red {n % 700}" for n in range(1000)]


@pytest.fixture(params=["sync", "async"])
def stream(request):
    """All pairs of `embed_documents_iter`, in the colour of this run; `stop` ends it after so many."""

    def sync(one, texts, stop=None, **options):
        found = []
        for pair in one.embed_documents_iter(texts, **options):
            found.append(pair)
            if len(found) == stop:
                break
        return found

    async def awaited(one, texts, stop=None, **options):
        found = []
        async with one, aclosing(one.aembed_documents_iter(texts, **options)) as pairs:
            async for pair in pairs:
                found.append(pair)
                if len(found) == stop:
                    break
        return found

    return sync if request.param == "sync" else lambda *args, **kwargs: asyncio.run(awaited(*args, **kwargs))


def test_each_text_has_its_vector_in_order(serve, embedder, stream, engine):
    found = stream(embedder(serve(engine, dims=8)), iter(TEXTS))
    assert [index for index, _ in found] == list(range(1000))
    np.testing.assert_allclose([vector for _, vector in found], [embed(text, 8) for text in TEXTS], atol=1e-6)


def test_no_text_is_taken_long_before_its_vector_is_asked_for(serve, embedder, stream):
    taken = []

    def texts():
        for n in range(100_000):
            taken.append(n)
            yield f"text {n}"

    one = embedder(serve("vllm", dims=8), batch_size=10, max_concurrency=4)
    assert len(stream(one, texts(), stop=100)) == 100
    assert len(taken) <= 100 + 10 * (2 * 4 + 1)


def test_progress_is_told_once_a_request(serve, embedder, stream):
    told = []
    server = serve("vllm", dims=8)
    stream(embedder(server, batch_size=300), TEXTS, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1000
    assert len(told) == len(server.work)


def test_what_came_before_an_error_is_not_lost(serve, embedder, stream):
    server = serve("vllm", dims=8)
    server.fail(Fault(400, {"error": {"message": "no"}}, holding="red 650", times=None))
    seen = []
    with pytest.raises(EndpointRejected, match="text 650") as caught:
        stream(embedder(server, batch_size=50), _watched(TEXTS, seen), progress=seen.append)
    assert caught.value.index == 650
    assert max(seen) == 650


def _watched(texts, seen):
    yield from texts


@pytest.mark.parametrize("bad", [None, " ", "\ud800"])
def test_what_is_no_text_is_named_after_those_before_it(serve, embedder, stream, bad):
    told = []
    with pytest.raises(InvalidInput, match="document 5 ") as caught:
        stream(embedder(serve("vllm", dims=8)), [*"abcde", bad, "f"], progress=told.append)
    assert caught.value.index == 5
    assert told == [5]


def test_an_error_of_the_iterable_comes_through_after_those_before_it(serve, embedder, stream):
    told = []

    def broken():
        yield from TEXTS[:40]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        stream(embedder(serve("vllm", dims=8)), broken(), progress=told.append)
    assert told == [40]


def test_failures_come_in_place_of_vectors(serve, embedder, stream):
    server = serve("vllm", dims=8)
    texts = [*TEXTS[:10], "long " * 600, None, *TEXTS[12:40], "long " * 600]
    found = stream(embedder(server), texts, on_error="return")
    assert [index for index, _ in found] == list(range(len(texts)))
    assert [type(found[n][1]) for n in (10, 11, 40)] == [InputTooLong, InvalidInput, InputTooLong]
    assert [found[n][1].index for n in (10, 11)] == [10, 11]
    good = [n for n in range(len(texts)) if n not in (10, 11, 40)]
    np.testing.assert_allclose([found[n][1] for n in good], [embed(texts[n], 8) for n in good], atol=1e-6)


def test_no_texts(serve, embedder, stream):
    assert stream(embedder(serve("vllm")), []) == []


def test_one_string_is_not_many_texts(serve, embedder, stream):
    with pytest.raises(InvalidInput, match="not one str"):
        stream(embedder(serve("vllm")), "a text")


def test_a_way_that_is_none(serve, embedder, stream):
    with pytest.raises(ConfigurationError, match="on_error='ignore'"):
        stream(embedder(serve("vllm")), ["a"], on_error="ignore")


async def test_texts_may_come_from_an_async_iterable(serve, embedder):
    async def texts():
        for text in TEXTS[:50]:
            await asyncio.sleep(0)
            yield text

    async with embedder(serve("vllm", dims=8)) as one:
        found = [vector async for _, vector in one.aembed_documents_iter(texts())]
    np.testing.assert_allclose(found, [embed(text, 8) for text in TEXTS[:50]], atol=1e-6)


def test_a_row_that_is_kept_does_not_keep_its_request(serve, embedder):
    for _, vector in embedder(serve("vllm", dims=8)).embed_documents_iter(TEXTS[:50]):
        assert vector.base is None
