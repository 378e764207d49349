"""RagpairEmbeddings: the core's options as LangChain fields, and the host programs that it must survive in."""

import asyncio
import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from langchain_ragpair import RagpairEmbeddings
from ragpair import ConfigurationError, Embedder, EndpointUnreachable, InvalidInput

TEXTS = [f"parcel number {number}" for number in range(10)]


@pytest.fixture
def server(serve):
    return serve("vllm")


@pytest.fixture
def embeddings(server):
    return RagpairEmbeddings(base_url=server.url, batch_size=4)


def test_options_are_those_of_the_core():
    core = inspect.signature(Embedder).parameters
    fields = RagpairEmbeddings.model_fields
    assert set(fields) == set(core)
    for name, parameter in core.items():
        if parameter.default is not parameter.empty:
            assert fields[name].get_default(call_default_factory=True) == parameter.default, name


def test_options_reach_the_core(server):
    options = {
        "model": server.model,
        "engine": "vllm",
        "family": "qwen3-embedding",
        "instruction": None,
        "query_prompt": "find: {text}!",
        "document_prompt": "read: ",
        "dimensions": 32,
        "too_long": "truncate",
        "batch_size": 2,
        "max_concurrency": 1,
        "timeout": 5.0,
        "max_retries": 0,
        "headers": {"X-Tenant": "blue"},
        "extra_body": {"priority": 1},
    }
    made = RagpairEmbeddings(base_url=[server.url], api_key="key", **options)
    expected = Embedder([server.url], api_key="key", **options)
    assert made.embedder.__getstate__() == expected.__getstate__()
    made.model_copy(update={"family": None, "dimensions": None}).embed_query("parcel")
    (request,) = server.work
    assert request.body["priority"] == 1
    assert request.body["input"] == ["find: parcel!"]
    assert request.headers["x-tenant"] == "blue"
    assert request.headers["authorization"] == "Bearer key"


def test_queries_and_documents_are_prompted_each_in_its_way(server, embeddings, call):
    query = call(embeddings, "embed_query", "where is my parcel")
    documents = call(embeddings, "embed_documents", TEXTS)
    assert server.texts[0].startswith("Instruct: ")
    assert server.texts[0].endswith("\nQuery:where is my parcel")
    assert sorted(server.texts[1:]) == TEXTS
    core = Embedder(server.url)
    np.testing.assert_array_equal(np.array(query, np.float32), core.embed_queries(["where is my parcel"])[0])
    np.testing.assert_array_equal(np.array(documents, np.float32), core.embed_documents(TEXTS))
    assert {type(number) for vector in [query, *documents] for number in vector} == {float}


def test_no_documents_make_no_request(server, embeddings, call):
    assert call(embeddings, "embed_documents", []) == []
    assert server.requests == []


def test_making_one_sends_nothing(server, embeddings):
    assert server.requests == []


async def test_async_is_native(embeddings, no_executor):
    assert len(await embeddings.aembed_query("parcel")) == 64
    assert len(await embeddings.aembed_documents(TEXTS)) == 10


def test_async_calls_run_at_the_same_time(serve, together):
    server = serve("vllm")
    embeddings = RagpairEmbeddings(base_url=server.url)

    async def many():
        for _ in range(4):  # concurrency grows with the answers
            await embeddings.aembed_query("warm up")
        together(server, 6)
        await asyncio.gather(*(embeddings.aembed_query(text) for text in TEXTS[:6]))

    asyncio.run(many())
    assert server.in_flight_peak == 6


def test_six_threads_share_one_object(serve, together):
    server = serve("vllm")
    embeddings = RagpairEmbeddings(base_url=server.url)
    for _ in range(4):  # concurrency grows with the answers
        expected = embeddings.embed_documents(TEXTS)
    together(server, 6)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: embeddings.embed_documents(TEXTS), range(12)))
    assert found == [expected] * 12
    assert server.in_flight_peak == 6


def test_one_object_serves_many_event_loops(embeddings):
    found = [asyncio.run(embeddings.aembed_query("parcel")) for _ in range(4)]
    assert found == [embeddings.embed_query("parcel")] * 4


def test_the_environment_fills_what_is_not_given(monkeypatch):
    monkeypatch.setenv("RAGPAIR_BASE_URL", "http://env:8000")
    monkeypatch.setenv("RAGPAIR_API_KEY", "env-key")
    made = RagpairEmbeddings()
    assert made.embedder.endpoint.base_urls == ("http://env:8000",)
    assert made.embedder.endpoint.api_key == "env-key"
    told = RagpairEmbeddings(base_url="http://told:8000", api_key="told-key")
    assert told.embedder.endpoint.base_urls == ("http://told:8000",)
    assert told.embedder.endpoint.api_key == "told-key"


def test_a_blank_key_is_no_key(monkeypatch):
    monkeypatch.setenv("RAGPAIR_API_KEY", "")
    assert RagpairEmbeddings(base_url="local").embedder.endpoint.api_key is None
    assert RagpairEmbeddings(base_url="local", api_key="").embedder.endpoint.api_key is None


@pytest.mark.parametrize("blank", [True, False])
def test_without_an_address_it_says_what_to_do(monkeypatch, blank):
    if blank:
        monkeypatch.setenv("RAGPAIR_BASE_URL", "")
    with pytest.raises(ConfigurationError, match=r"base_url=.*RAGPAIR_BASE_URL.*'local'"):
        RagpairEmbeddings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 8}, r"no option 'chunk_size'.* batch_size"),
        ({"model_name": "x"}, r"no option 'model_name'\. Did you mean model\?"),
        ({"engine": "tgi"}, "engine: Input should be 'auto', 'vllm'"),
        ({"too_long": "split"}, "too_long: Input should be"),
        ({"base_url": None}, "base_url"),
        ({"base_url": "http://user:pass@server"}, "user name or password"),
        ({"base_url": []}, "base_url is empty"),
        ({"dimensions": 0}, "dimensions must be a whole number from 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"family": "nonesuch"}, "nonesuch"),
        ({"instruction": "Find it.", "family": "multilingual-e5"}, "instruction"),
    ],
)
def test_options_that_cannot_be_are_refused_when_it_is_made(options, message):
    with pytest.raises(ConfigurationError, match=message):
        RagpairEmbeddings(**{"base_url": "http://localhost:8000", **options})


def test_settings_of_an_object_cannot_be_changed(embeddings):
    with pytest.raises(ConfigurationError, match="model_copy"):
        embeddings.dimensions = 32
    assert len(embeddings.model_copy(update={"dimensions": 32}).embed_query("parcel")) == 32
    with pytest.raises(ConfigurationError, match="Did you mean dimensions"):
        embeddings.model_copy(update={"dimension": 32})


def test_what_was_passed_in_is_not_kept():
    headers, body = {"X-Tenant": "blue"}, {"priority": 1}
    made = RagpairEmbeddings(base_url="http://localhost:8000", headers=headers, extra_body=body)
    headers["X-Tenant"], body["priority"] = "red", 2
    assert made.embedder.endpoint.headers == {"X-Tenant": "blue"}
    assert made.embedder.__getstate__()["extra_body"] == {"priority": 1}


@pytest.mark.parametrize(
    "copied",
    [
        lambda made: pickle.loads(pickle.dumps(made)),
        copy.deepcopy,
        copy.copy,
        lambda made: made.model_copy(),
        lambda made: made.model_copy(deep=True),
        lambda made: RagpairEmbeddings(**made.model_dump()),
    ],
    ids=["pickle", "deepcopy", "copy", "model_copy", "model_copy deep", "model_dump"],
)
def test_copies_keep_all_settings(serve, copied):
    server = serve("vllm", api_key="SEKRET")
    made = RagpairEmbeddings(
        base_url=server.url, api_key="SEKRET", dimensions=32, headers={"X-Tenant": "blue"}, extra_body={"priority": 1}
    )
    made.embed_query("parcel")
    other = copied(made)
    assert other == made
    assert other.embed_query("parcel") == made.embed_query("parcel")
    assert asyncio.run(other.aembed_query("parcel")) == made.embed_query("parcel")
    assert {request.headers["x-tenant"] for request in server.work} == {"blue"}


def test_errors_of_the_core_come_through(embeddings, call, unused_tcp_port):
    with pytest.raises(InvalidInput) as bad:
        call(embeddings, "embed_documents", ["parcel", None])
    assert bad.value.index == 1
    with pytest.raises(InvalidInput, match="not one str"):
        call(embeddings, "embed_documents", "parcel")
    dead = RagpairEmbeddings(base_url=f"http://127.0.0.1:{unused_tcp_port}", max_retries=0)
    with pytest.raises(EndpointUnreachable):
        call(dead, "embed_query", "parcel")
