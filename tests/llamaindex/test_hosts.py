"""The awkward places that LlamaIndex calls from: short-lived loops, running loops, threads, other processes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from llama_index.core import Document
from llama_index.core.async_utils import asyncio_run
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, TextNode

from ragpair.testing.model import embed

KEY = "SEKRET-a1b2c3"
NODES = [NodeWithScore(node=TextNode(text=text)) for text in ("bananas", "track my parcel")]


@pytest.fixture
def pair(serve, embedding, rerank):
    embedder, reranker = serve("vllm", latency=0.005), serve("vllm", task="rerank", latency=0.005)
    return embedding(embedder), rerank(reranker)


async def use(pair):
    embeds, reranks = pair
    vector = await embeds.aget_query_embedding("q")
    vectors = await embeds.aget_text_embedding_batch([f"t{n}" for n in range(50)])
    (best, *_) = await reranks.apostprocess_nodes(NODES, query_str="track my parcel")
    return vector, vectors, best.text


def used(pair):
    embeds, reranks = pair
    vector = embeds.get_query_embedding("q")
    vectors = embeds.get_text_embedding_batch([f"t{n}" for n in range(50)])
    (best, *_) = reranks.postprocess_nodes(NODES, query_str="track my parcel")
    return vector, vectors, best.text


def test_four_loops_one_after_the_other(pair):
    results = [asyncio.run(use(pair)) for _ in range(4)]
    assert all(result == used(pair) for result in results)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_in_a_running_loop_as_in_a_notebook(pair, abandoned):
    """LlamaIndex's asyncio_run runs a thread with a loop of its own while the loop around waits."""
    expected = await use(pair)
    for _ in range(3):
        assert asyncio_run(use(pair)) == expected
        assert used(pair) == expected
    assert await use(pair) == expected
    for each in (pair[0].embedder, pair[1].reranker):
        await each.aclose()
    await abandoned(use(pair))


@pytest.mark.usefixtures("own_loop")
def test_without_a_running_loop(pair):
    assert asyncio_run(use(pair)) == asyncio_run(use(pair)) == used(pair)


def test_six_threads(pair):
    expected = used(pair)
    with ThreadPoolExecutor(6) as threads:
        sync = [threads.submit(used, pair) for _ in range(12)]
        awaited = [threads.submit(lambda: asyncio.run(use(pair))) for _ in range(12)]
    assert all(future.result() == expected for future in sync + awaited)


def test_worker_processes(serve, embedding):
    """IngestionPipeline spawns them, and sends them pickles; the key must go along."""
    server = serve("vllm", api_key=KEY)
    one = embedding(server, api_key=KEY, headers={"X-Gateway": KEY}, document_prompt="D: ")
    one.get_query_embedding("used before it is pickled")
    server.clear()
    documents = [Document(text=f"text {n}") for n in range(6)]
    nodes = IngestionPipeline(transformations=[one]).run(documents=documents, num_workers=2)
    assert [node.text for node in nodes] == [document.text for document in documents]
    for node in nodes:
        assert node.embedding == pytest.approx(embed(f"D: {node.text}", 64), abs=1e-6)
    assert len(server.work) == 2
    assert {request.headers["x-gateway"] for request in server.work} == {KEY}
