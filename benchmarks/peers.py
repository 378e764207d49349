"""The libraries that are compared, each as its users use it: at its defaults, and tuned as far as its options go.

One exception to the defaults: `check_embedding_ctx_length=False` for LangChain's `OpenAIEmbeddings`. With its default
it fetches an OpenAI tokenizer and sends token ids, which a self-hosted model reads as other text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .stub import MODEL

Embed = Callable[[list[str]], Any]  # returns the vectors, or awaits them


@dataclass(frozen=True)
class Library:
    """A library in one colour.

    Attributes:
        name: As printed, with its colour.
        colour: "async", or "sync".
        returns: "array" or "lists".
        make: What embeds a list of texts at a base URL; it may be made before the clock starts.
        note: What is not at its default, and what explains its number.
        rival: The name of ours that a user could have instead; None for ours.
    """

    name: str
    colour: Literal["async", "sync"]
    returns: Literal["array", "lists"]
    make: Callable[[str], Embed]
    note: str = ""
    rival: str | None = None

    @property
    def tuned(self) -> bool:
        """Whether its options were changed for speed."""
        return self.name.endswith("tuned")


# --- ours ------------------------------------------------------------------------------------------------------------


def _core(url: str, **options: Any) -> Any:
    from ragpair import Embedder

    return Embedder(url, MODEL, family=None, **options)


def _langchain_ragpair(url: str, **options: Any) -> Any:
    from langchain_ragpair import RagpairEmbeddings

    return RagpairEmbeddings(base_url=url, model=MODEL, family=None, **options)


def _llamaindex_ragpair(url: str, **options: Any) -> Any:
    from llamaindex_ragpair import RagpairEmbedding

    return RagpairEmbedding(base_url=url, model=MODEL, family=None, **options)


def ours() -> Iterator[Library]:
    """The core and its adapters."""
    yield Library("ragpair, async", "async", "array", lambda url: _core(url).aembed_documents)
    yield Library("ragpair, sync", "sync", "array", lambda url: _core(url).embed_documents)
    yield Library(
        "ragpair, async, tuned",
        "async",
        "array",
        lambda url: _core(url, batch_size=256).aembed_documents,
        "batch_size=256",
    )
    yield Library(
        "ragpair, sync, tuned",
        "sync",
        "array",
        lambda url: _core(url, batch_size=256, max_concurrency=2).embed_documents,
        "batch_size=256, max_concurrency=2",
    )
    yield Library("langchain_ragpair, async", "async", "lists", lambda url: _langchain_ragpair(url).aembed_documents)
    yield Library("langchain_ragpair, sync", "sync", "lists", lambda url: _langchain_ragpair(url).embed_documents)
    yield Library(
        "langchain_ragpair on Ollama, async",
        "async",
        "lists",
        lambda url: _langchain_ragpair(url, engine="ollama").aembed_documents,
        "/api/embed",
    )
    yield Library(
        "langchain_ragpair on Ollama, sync",
        "sync",
        "lists",
        lambda url: _langchain_ragpair(url, engine="ollama").embed_documents,
        "/api/embed",
    )
    yield Library(
        "llamaindex_ragpair, async",
        "async",
        "lists",
        lambda url: _llamaindex_ragpair(url).aget_text_embedding_batch,
    )
    yield Library(
        "llamaindex_ragpair, sync", "sync", "lists", lambda url: _llamaindex_ragpair(url).get_text_embedding_batch
    )
    yield Library(
        "llamaindex_ragpair on Ollama, async",
        "async",
        "lists",
        lambda url: _llamaindex_ragpair(url, engine="ollama").aget_text_embedding_batch,
        "/api/embed",
    )
    yield Library(
        "llamaindex_ragpair on Ollama, sync",
        "sync",
        "lists",
        lambda url: _llamaindex_ragpair(url, engine="ollama").get_text_embedding_batch,
        "/api/embed",
    )


# --- the others ------------------------------------------------------------------------------------------------------


def openai_embeddings(url: str, **options: Any) -> Any:
    """LangChain's client for OpenAI-shaped servers."""
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    return OpenAIEmbeddings(
        base_url=f"{url}/v1", api_key=SecretStr("none"), model=MODEL, check_embedding_ctx_length=False, **options
    )


def ollama_embeddings(url: str) -> Any:
    """LangChain's Ollama client."""
    from langchain_ollama import OllamaEmbeddings

    return OllamaEmbeddings(base_url=url, model=MODEL)


def openai_like(url: str, **options: Any) -> Any:
    """LlamaIndex's client for OpenAI-shaped servers."""
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    return OpenAILikeEmbedding(api_base=f"{url}/v1", api_key="none", model_name=MODEL, **options)


def ollama_embedding(url: str, **options: Any) -> Any:
    """LlamaIndex's Ollama client."""
    from llama_index.embeddings.ollama import OllamaEmbedding

    return OllamaEmbedding(model_name=MODEL, base_url=url, **options)


def _litellm(url: str) -> tuple[Any, dict[str, str]]:
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the import would fetch a price list from the network
    import litellm

    return litellm, {"model": f"hosted_vllm/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"}


def _litellm_sync(url: str) -> Embed:
    litellm, options = _litellm(url)
    return lambda texts: [row["embedding"] for row in litellm.embedding(input=texts, **options).data]


def _litellm_async(url: str) -> Embed:
    litellm, options = _litellm(url)

    async def embed(texts: list[str]) -> Any:
        return [row["embedding"] for row in (await litellm.aembedding(input=texts, **options)).data]

    return embed


def others() -> Iterator[Library]:
    """What ships with LangChain and LlamaIndex, and LiteLLM."""
    yield Library(
        "LangChain OpenAIEmbeddings, async",
        "async",
        "lists",
        lambda url: openai_embeddings(url).aembed_documents,
        "1,000 texts a request, one after another",
        "langchain_ragpair, async",
    )
    yield Library(
        "LangChain OpenAIEmbeddings, sync",
        "sync",
        "lists",
        lambda url: openai_embeddings(url).embed_documents,
        "1,000 texts a request, one after another",
        "langchain_ragpair, sync",
    )
    yield Library(
        "LangChain OpenAIEmbeddings, async, tuned",
        "async",
        "lists",
        lambda url: openai_embeddings(url, chunk_size=256).aembed_documents,
        "chunk_size=256",
        "langchain_ragpair, async",
    )
    yield Library(
        "LangChain OllamaEmbeddings, async",
        "async",
        "lists",
        lambda url: ollama_embeddings(url).aembed_documents,
        "all texts in one request",
        "langchain_ragpair on Ollama, async",
    )
    yield Library(
        "LangChain OllamaEmbeddings, sync",
        "sync",
        "lists",
        lambda url: ollama_embeddings(url).embed_documents,
        "all texts in one request",
        "langchain_ragpair on Ollama, sync",
    )
    yield Library(
        "LlamaIndex OpenAILikeEmbedding, async",
        "async",
        "lists",
        lambda url: openai_like(url).aget_text_embedding_batch,
        "10 texts a request, all at once",
        "llamaindex_ragpair, async",
    )
    yield Library(
        "LlamaIndex OpenAILikeEmbedding, sync",
        "sync",
        "lists",
        lambda url: openai_like(url).get_text_embedding_batch,
        "10 texts a request, one after another",
        "llamaindex_ragpair, sync",
    )
    yield Library(
        "LlamaIndex OpenAILikeEmbedding, async, tuned",
        "async",
        "lists",
        lambda url: openai_like(url, embed_batch_size=256, num_workers=8).aget_text_embedding_batch,
        "embed_batch_size=256, num_workers=8",
        "llamaindex_ragpair, async",
    )
    yield Library(
        "LlamaIndex OllamaEmbedding, async",
        "async",
        "lists",
        lambda url: ollama_embedding(url).aget_text_embedding_batch,
        "10 texts a request",
        "llamaindex_ragpair on Ollama, async",
    )
    yield Library(
        "LlamaIndex OllamaEmbedding, sync",
        "sync",
        "lists",
        lambda url: ollama_embedding(url).get_text_embedding_batch,
        "10 texts a request",
        "llamaindex_ragpair on Ollama, sync",
    )
    yield Library(
        "LlamaIndex OllamaEmbedding, async, tuned",
        "async",
        "lists",
        lambda url: ollama_embedding(url, embed_batch_size=256, num_workers=8).aget_text_embedding_batch,
        "embed_batch_size=256, num_workers=8",
        "llamaindex_ragpair on Ollama, async",
    )
    yield Library(
        "LiteLLM, async",
        "async",
        "lists",
        _litellm_async,
        "all texts in one request",
        "langchain_ragpair, async",
    )
    yield Library(
        "LiteLLM, sync", "sync", "lists", _litellm_sync, "all texts in one request", "langchain_ragpair, sync"
    )
