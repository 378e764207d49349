"""The whole pair under LlamaIndex's index, retrievers and query engine, with Qdrant in memory."""

import asyncio

import pytest
from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

pytest.importorskip("llama_index.vector_stores.qdrant")
pytest.importorskip("qdrant_edge")

from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.models import Modifier, SparseVectorParams

from llamaindex_ragpair import RagpairSparseEncoder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant:UserWarning")

ANSWERS = {
    "track": "You can track your parcel with the number in the mail.",
    "refund": "A refund takes five days after the parcel is back.",
    "invoice": "Invoices are in your account, under orders.",
    "code": "Error E-4711 means that the door is open.",
}
NODES = [TextNode(text=text, id_=f"00000000-0000-0000-0000-00000000000{n}", metadata={"name": name})
         for n, (name, text) in enumerate(ANSWERS.items())]  # fmt: skip


@pytest.fixture
def client():
    client = QdrantClient(":memory:")
    yield client
    client.close()


@pytest.fixture(autouse=True)
def no_llm(monkeypatch):
    monkeypatch.setattr(Settings, "_llm", MockLLM())


def fresh():
    return [node.model_copy(deep=True) for node in NODES]


def names(found):
    return [item.node.metadata["name"] for item in found]


def test_retriever_and_reranker(serve, embedding, rerank, client, engine):
    embeds = embedding(serve(engine))
    reranks = rerank(serve("vllm", task="rerank"), top_n=1)
    storage = StorageContext.from_defaults(vector_store=QdrantVectorStore("help", client=client))
    index = VectorStoreIndex(fresh(), storage_context=storage, embed_model=embeds)
    assert names(index.as_retriever(similarity_top_k=1).retrieve("how long does a refund take")) == ["refund"]
    answer = index.as_query_engine(similarity_top_k=4, node_postprocessors=[reranks]).query("how to track my parcel")
    assert names(answer.source_nodes) == ["track"]
    assert 0.1 < answer.source_nodes[0].score < 1


async def test_the_same_awaited(serve, embedding, rerank, client, engine):
    aclient = AsyncQdrantClient(":memory:")
    embeds, reranks = embedding(serve(engine)), rerank(serve("vllm", task="rerank"), top_n=1)
    store = QdrantVectorStore("help", client=client, aclient=aclient)  # whose data are apart in memory
    await IngestionPipeline(transformations=[embeds], vector_store=store).arun(nodes=fresh())
    index = VectorStoreIndex.from_vector_store(store, embed_model=embeds)
    assert names(await index.as_retriever(similarity_top_k=1).aretrieve("how long does a refund take")) == ["refund"]
    query_engine = index.as_query_engine(similarity_top_k=4, node_postprocessors=[reranks])
    answers = await asyncio.gather(*(query_engine.aquery("how to track my parcel") for _ in range(3)))
    assert [names(answer.source_nodes) for answer in answers] == [["track"]] * 3
    for each in (embeds.embedder, reranks.reranker):
        await each.aclose()
    await aclient.close()


@pytest.mark.usefixtures("own_loop")
def test_use_async_again_and_again(serve, embedding):
    embeds = embedding(serve("vllm"))
    for _ in range(3):
        index = VectorStoreIndex(fresh(), embed_model=embeds, use_async=True)
        assert names(index.as_retriever(similarity_top_k=1).retrieve("how long does a refund take")) == ["refund"]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_use_async_in_a_running_loop(serve, embedding, abandoned):
    embeds = embedding(serve("vllm"))
    for _ in range(3):
        index = VectorStoreIndex.from_documents([Document(text="a parcel")], embed_model=embeds, use_async=True)
        assert len(await index.as_retriever().aretrieve("parcel")) == 1
    await embeds.embedder.aclose()
    await abandoned(embeds.aget_query_embedding("q"))


def test_the_cache_of_a_pipeline_knows_the_settings(serve, embedding):
    server = serve("vllm")
    pipeline = IngestionPipeline(transformations=[embedding(server)])
    first = pipeline.run(nodes=fresh())
    sent = len(server.texts)
    assert [node.embedding for node in pipeline.run(nodes=fresh())] == [node.embedding for node in first]
    assert len(server.texts) == sent
    pipeline.transformations = [embedding(server, document_prompt="D: ")]
    assert pipeline.run(nodes=fresh())[0].embedding != first[0].embedding


@pytest.mark.parametrize("query", ["E-4711", "what is 4711"])
def test_hybrid_search_finds_codes(serve, embedding, client, query):
    bm25 = RagpairSparseEncoder()
    store = QdrantVectorStore(
        "help",
        client=client,
        enable_hybrid=True,
        sparse_doc_fn=bm25.documents,
        sparse_query_fn=bm25.queries,
        sparse_config=SparseVectorParams(modifier=Modifier.IDF),
    )
    storage = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(
        [*fresh(), TextNode(text="。", metadata={"name": "blank"})],
        storage_context=storage,
        embed_model=embedding(serve("vllm")),
    )
    for mode in ("hybrid", "sparse"):
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=1, sparse_top_k=2, alpha=0.3)
        assert names(retriever.retrieve(query)) == ["code"]
