"""The whole pair under langchain-qdrant, which calls the sync methods from threads even when it is awaited."""

import asyncio

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document

from langchain_ragpair import RagpairEmbeddings, RagpairRerank, RagpairSparseEmbeddings
from ragpair.demo.helpdesk import load, ndcg_at_10

langchain_qdrant = pytest.importorskip("langchain_qdrant")
pytest.importorskip("qdrant_edge")

from langchain_qdrant import QdrantVectorStore, RetrievalMode  # noqa: E402
from qdrant_client.models import Modifier  # noqa: E402

ANSWERS = {
    "track": "You can track your parcel with the number in the mail.",
    "refund": "A refund takes five days after the parcel is back.",
    "invoice": "Invoices are in your account, under orders.",
    "code": "Error E-4711 means that the door is open.",
}
DOCUMENTS = [Document(text, metadata={"name": name}) for name, text in ANSWERS.items()]


@pytest.fixture(params=["vllm", "sglang", "ollama", "llamacpp"])
def embeddings(request, serve):
    return RagpairEmbeddings(base_url=serve(request.param).url)


@pytest.fixture
def stores():
    made = []
    yield made
    for store in made:
        store.client.close()


def names(found):
    return [document.metadata["name"] for document in found]


def test_sync_end_to_end(embeddings, stores, serve):
    store = QdrantVectorStore.from_documents(DOCUMENTS, embeddings, location=":memory:")
    stores.append(store)
    assert names(store.similarity_search("how long does a refund take", k=1)) == ["refund"]
    rerank = RagpairRerank(base_url=serve("vllm", task="rerank").url, top_n=1)
    retriever = ContextualCompressionRetriever(
        base_compressor=rerank, base_retriever=store.as_retriever(search_kwargs={"k": 4})
    )
    (best,) = retriever.invoke("how to track my parcel")
    assert best.metadata["name"] == "track"
    assert best.metadata["relevance_score"] > 0.1
    assert best.metadata["_id"]


async def test_async_end_to_end(embeddings, stores):
    store = await QdrantVectorStore.afrom_documents(DOCUMENTS[:1], embeddings, location=":memory:")
    stores.append(store)
    await store.aadd_documents(DOCUMENTS[1:])
    assert names(await store.asimilarity_search("how long does a refund take", k=1)) == ["refund"]


async def test_its_threads_embed_at_the_same_time(serve, stores, together):
    server = serve("vllm")
    embeddings = RagpairEmbeddings(base_url=server.url)
    store = QdrantVectorStore.from_documents(DOCUMENTS, embeddings, location=":memory:")
    stores.append(store)
    for _ in range(2):  # concurrency grows with the answers
        embeddings.embed_query("warm up")
    together(server, 4)
    found = await asyncio.gather(*(store.asimilarity_search(text, k=1) for text in ANSWERS.values()))
    assert [names(each) for each in found] == [[name] for name in ANSWERS]
    assert server.in_flight_peak == 4


@pytest.mark.parametrize("query", ["E-4711", "what is 4711"])
def test_hybrid_search_finds_codes(embeddings, stores, query):
    store = QdrantVectorStore.from_documents(
        DOCUMENTS,
        embeddings,
        location=":memory:",
        sparse_embedding=RagpairSparseEmbeddings(),
        retrieval_mode=RetrievalMode.HYBRID,
        sparse_vector_params={"modifier": Modifier.IDF},
    )
    stores.append(store)
    assert names(store.similarity_search(query, k=1)) == ["code"]
    store.retrieval_mode = RetrievalMode.SPARSE
    assert names(store.similarity_search(query, k=1)) == ["code"]


@pytest.mark.parametrize(("language", "expected"), [("en", 0.33), ("zh", 0.49)])
def test_bm25_finds_answers_of_the_help_desk(stores, language, expected):
    entries, questions = load(language)
    store = QdrantVectorStore.from_texts(
        [entry.text for entry in entries],
        metadatas=[{"id": entry.id} for entry in entries],
        location=":memory:",
        sparse_embedding=RagpairSparseEmbeddings(),
        retrieval_mode=RetrievalMode.SPARSE,
        sparse_vector_params={"modifier": Modifier.IDF},
    )
    stores.append(store)
    asked = [(question.text, question.answer) for question in questions if question.answer]
    rankings = [[found.metadata["id"] for found in store.similarity_search(text, k=10)] for text, _ in asked]
    assert ndcg_at_10(rankings, [answer for _, answer in asked]) == pytest.approx(expected, abs=0.02)
