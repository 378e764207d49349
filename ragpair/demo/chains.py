"""The same chain in either framework: Qdrant recalls the nearest entries, the reranker sorts them.

Written as a user would write it, from the frameworks' own parts; ours are the two lines with `Ragpair` in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ragpair.demo.helpdesk import Entry
from ragpair.errors import ConfigurationError

Framework = Literal["langchain", "llamaindex"]


@dataclass(frozen=True, slots=True)
class Setup:
    """Which models, and which Qdrant.

    Attributes:
        embed: Arguments of the embedder, such as base_url and model.
        rerank: Arguments of the reranker; None leaves it out.
        qdrant_url: Address of a Qdrant server; None keeps the vectors in memory.
        fetch_k: Entries that are recalled.
    """

    embed: dict[str, Any]
    rerank: dict[str, Any] | None = None
    qdrant_url: str | None = None
    fetch_k: int = 10
    collection: str = field(default="ragpair-demo")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the chain found: ids as recalled, ids as reranked, and the score of the best."""

    recalled: list[str]
    ranked: list[str]
    score: float | None


Chain = Callable[[str], Asked]


def build(framework: Framework, setup: Setup, entries: Sequence[Entry]) -> Chain:
    """Index the entries, and return the chain."""
    try:
        from qdrant_client.http.exceptions import ApiException

        try:
            return {"langchain": langchain_chain, "llamaindex": llamaindex_chain}[framework](setup, entries)
        except ApiException as exc:
            raise ConfigurationError(f"Qdrant at {setup.qdrant_url} could not be used: {exc}") from exc
    except ImportError as exc:
        raise ConfigurationError(f'{exc}. The demo needs: pip install "ragpair[all]"') from exc


def langchain_chain(setup: Setup, entries: Sequence[Entry]) -> Chain:
    """LangChain: a vector store's retriever and a document compressor."""
    from langchain_core.documents import Document
    from langchain_qdrant import QdrantVectorStore

    from langchain_ragpair import RagpairEmbeddings, RagpairRerank

    documents = [Document(entry.text, metadata={"id": entry.id, "category": entry.category}) for entry in entries]
    where = {"url": setup.qdrant_url} if setup.qdrant_url else {"location": ":memory:"}
    store = QdrantVectorStore.from_documents(
        documents,
        RagpairEmbeddings(**setup.embed),
        collection_name=setup.collection,
        force_recreate=True,
        **where,
    )
    retriever = store.as_retriever(search_kwargs={"k": setup.fetch_k})
    reranker = RagpairRerank(**setup.rerank, top_n=None) if setup.rerank else None

    def ask(question: str) -> Asked:
        recalled = retriever.invoke(question)
        ranked = reranker.compress_documents(recalled, question) if reranker else recalled
        score = ranked[0].metadata.get("relevance_score") if ranked else None
        return Asked([doc.metadata["id"] for doc in recalled], [doc.metadata["id"] for doc in ranked], score)

    return ask


def llamaindex_chain(setup: Setup, entries: Sequence[Entry]) -> Chain:
    """LlamaIndex: an index's retriever and a node postprocessor."""
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    from llamaindex_ragpair import RagpairEmbedding, RagpairRerank

    client = QdrantClient(url=setup.qdrant_url) if setup.qdrant_url else QdrantClient(location=":memory:")
    if client.collection_exists(setup.collection):
        client.delete_collection(setup.collection)
    store = QdrantVectorStore(setup.collection, client=client)
    hidden = ["entry", "category"]  # metadata that must not be embedded with the text
    nodes = [
        TextNode(
            text=entry.text,
            metadata={"entry": entry.id, "category": entry.category},
            excluded_embed_metadata_keys=hidden,
            excluded_llm_metadata_keys=hidden,
        )
        for entry in entries
    ]
    index = VectorStoreIndex(
        nodes,
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=RagpairEmbedding(**setup.embed),
    )
    retriever = index.as_retriever(similarity_top_k=setup.fetch_k)
    reranker = RagpairRerank(**setup.rerank, top_n=None) if setup.rerank else None

    def ask(question: str) -> Asked:
        recalled = retriever.retrieve(question)
        ranked = reranker.postprocess_nodes(recalled, query_str=question) if reranker else recalled
        score = ranked[0].score if reranker and ranked else None
        return Asked([node.metadata["entry"] for node in recalled], [node.metadata["entry"] for node in ranked], score)

    return ask
