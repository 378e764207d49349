"""Embeddings for LangChain."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings
from pydantic import Field, SecretStr

from langchain_ragpair._settings import ServerSettings, key_from_env, url_from_env
from ragpair.options import EmbedDtype, OnTooLong

if TYPE_CHECKING:
    from ragpair import Embedder


class RagpairEmbeddings(ServerSettings, Embeddings):
    """Embeddings from your own server, with the prompts that the model's authors define.

    Running: an embedding model on vLLM (`vllm serve Qwen/Qwen3-Embedding-0.6B --runner pooling`), SGLang, Ollama or
    llama.cpp.

        from langchain_ragpair import RagpairEmbeddings

        embeddings = RagpairEmbeddings(base_url="http://localhost:8000")
        vector = embeddings.embed_query("where is my parcel?")

    Without a server, `base_url="local"` runs a small English model in this process (pip install "ragpair[local]").

    Making one sends nothing. It is safe to share between threads, tasks and event loops; async calls are native, and
    sync calls from many threads, such as QdrantVectorStore's async methods make, run at the same time. Fields not set
    are read from RAGPAIR_BASE_URL and RAGPAIR_API_KEY.

    Raises:
        ConfigurationError: An option that cannot be, or that does not exist; it is a `ValueError`, too.
    """

    base_url: str | list[str] = Field(
        default_factory=url_from_env(
            "RAGPAIR_BASE_URL", "RagpairEmbeddings needs", "is the embedded model, which needs no server"
        )
    )

    api_key: SecretStr | None = Field(default_factory=key_from_env("RAGPAIR_API_KEY"))

    query_prompt: str | None = None
    """For queries, in place of the family's: a prefix such as "query: ", or a template with {text}."""

    document_prompt: str | None = None
    """The same for documents."""

    dimensions: int | None = None
    """Width of the vectors, for models that were trained to be cut."""

    too_long: OnTooLong = "error"
    """What becomes of a text over the model's limit: "error", or "truncate" keeps its beginning."""

    batch_size: int | None = None
    """Texts in one request at most; None is what suits the engine (1,024 on vLLM and SGLang, 64 on Ollama)."""

    embed_dtype: EmbedDtype = "float32"
    """How vectors travel: "float16" halves the bytes on the wire, for vLLM 0.13 and newer."""

    @cached_property
    def embedder(self) -> Embedder:
        """What does the work: for numpy arrays, `describe()` and `close()`."""
        from ragpair import Embedder  # late: numpy and the core are most of the time that an import takes

        return Embedder(**self._arguments(Embedder))

    def _check(self) -> None:
        _ = self.embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of what is searched in, in the order of the texts."""
        vectors: list[list[float]] = self.embedder.embed_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of what is searched for."""
        vector: list[float] = self.embedder.embed_queries([text])[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like `embed_documents`, awaited."""
        vectors: list[list[float]] = (await self.embedder.aembed_documents(texts)).tolist()
        return vectors

    async def aembed_query(self, text: str) -> list[float]:
        """Like `embed_query`, awaited."""
        vector: list[float] = (await self.embedder.aembed_queries([text]))[0].tolist()
        return vector
