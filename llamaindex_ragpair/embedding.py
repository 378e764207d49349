"""Embeddings for LlamaIndex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from pydantic import Field, PrivateAttr, SecretStr

from llamaindex_ragpair._settings import ServerSettings, key_from_env, url_from_env
from ragpair import ConfigurationError
from ragpair.options import EmbedDtype, OnTooLong

if TYPE_CHECKING:
    from ragpair import Embedder

_UNNAMED = "unknown"  # LlamaIndex's own word for a model without a name


class RagpairEmbedding(ServerSettings, BaseEmbedding):
    """Embeddings from your own server, with the prompts that the model's authors define.

    Running: an embedding model on vLLM (`vllm serve Qwen/Qwen3-Embedding-0.6B`), SGLang, Ollama or llama.cpp.

        from llamaindex_ragpair import RagpairEmbedding

        Settings.embed_model = RagpairEmbedding(base_url="http://localhost:8000")
        index = VectorStoreIndex.from_documents(documents)

    Without a server, `base_url="local"` runs a small English model in this process (pip install "ragpair[local]").

    Queries get the prompt for queries, nodes the one for documents. Making one sends nothing. It is safe to share
    between threads, tasks and event loops, async calls are native, and pickles for worker processes keep the key.
    Fields not set are read from RAGPAIR_BASE_URL and RAGPAIR_API_KEY; `to_dict` leaves key and headers out, and
    `from_dict(data, headers=...)` takes them again.

    A `rate_limiter` counts slices of `embed_batch_size` texts, not requests. Vectors are kept by IngestionPipeline's
    cache, which knows texts and settings; `embeddings_cache`, which knows the text alone, is refused. Name the `model`
    where you keep vectors: a cache cannot see that the server behind an address serves another one.

    Raises:
        ConfigurationError: An option that cannot be, or that does not exist; it is a `ValueError`, too.
    """

    base_url: str | list[str] = Field(default_factory=url_from_env("RAGPAIR_BASE_URL", "RagpairEmbedding"))

    api_key: SecretStr | None = Field(default_factory=key_from_env("RAGPAIR_API_KEY"), exclude=True)

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

    model_name: str = _UNNAMED
    """What LlamaIndex reads; it follows `model`, and may be passed in its place."""

    embed_batch_size: int = Field(default=2048, gt=0, le=2048)
    """Texts that LlamaIndex hands over at once, one slice after the other; requests are cut by `batch_size`."""

    _embedder: Embedder = PrivateAttr()

    if not TYPE_CHECKING:

        def __init__(self, *unnamed: Any, **fields: Any) -> None:
            model, name = fields.get("model"), fields.pop("model_name", None)
            if name not in (None, _UNNAMED, model):
                if model is not None:
                    raise ConfigurationError(
                        f"model={model!r} and model_name={name!r} are two names for the same thing: pass model= alone."
                    )
                fields["model"] = model = name
            super().__init__(*unnamed, **fields, model_name=model or _UNNAMED)

    def _fields(self) -> dict[str, Any]:
        return {name: value for name, value in super()._fields().items() if name != "model_name"}

    def _connect(self) -> None:
        if self.embeddings_cache is not None:
            raise ConfigurationError(
                "embeddings_cache keeps vectors under the bare text, whoever asked: a query would get the vector of a "
                "document, made with another prompt, and one model the vectors of another. "
                "IngestionPipeline(cache=...) keeps vectors of documents by text and settings."
            )
        from ragpair import Embedder  # late: numpy and the core are most of the time that an import takes

        self._embedder = Embedder(**self._arguments(Embedder))

    @classmethod
    def class_name(cls) -> str:
        """Under this name LlamaIndex writes it down."""
        return "RagpairEmbedding"

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """What `to_dict` wrote down, with other settings where they are given: the key and headers, mostly."""
        follows = "model" in data
        return super().from_dict({k: v for k, v in data.items() if k != "model_name" or not follows}, **kwargs)

    @property
    def embedder(self) -> Embedder:
        """What does the work: for numpy arrays, `describe()` and `close()`."""
        return self._embedder

    def _get_query_embedding(self, query: str) -> Embedding:
        vector: Embedding = self._embedder.embed_queries([query])[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> Embedding:
        vector: Embedding = (await self._embedder.aembed_queries([query]))[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = self._embedder.embed_documents(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = (await self._embedder.aembed_documents(texts)).tolist()
        return vectors
