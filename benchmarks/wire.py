"""What crosses the wire: bytes a vector, and bytes a reranking, by library.

    python -m benchmarks.wire --dims 1024

The server counts: request and reply of each call that embeds or scores, HTTP heads included.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import httpx
import orjson

from ragpair import Embedder, Reranker

from .peers import ollama_embedding, ollama_embeddings, openai_embeddings, openai_like
from .report import Section, at_most, machine, script, table
from .stub import MODEL, MODELS, Settings, counted, running_stub

TEXTS = 1024
FLOAT32, FLOAT16 = 4, 2  # bytes of a number
QUERY = "where is my parcel, and when will it arrive?"
# A passage of the size that splitters make.
PASSAGE = "A passage about nothing in particular, as long as those that are put before a reranker. " * 12

ABOUT = """\
Counted by the server, heads included; nothing is timed. {texts:,} texts of {dims} numbers. The last column is what
came back for a vector, over the {raw:,} bytes of its float32 numbers: base64 alone makes 1.33 of them, and of float16
0.67."""
ABOUT_RERANK = """\
{count} documents of {size:,} bytes. `/v1/rerank` sends every document back; `/v1/score` sends a number for each."""

EMBED: dict[str, Callable[[str], Callable[[list[str]], Any]]] = {
    "ragpair": lambda url: Embedder(url, MODEL, family=None).embed_documents,
    "ragpair, embed_dtype='float16'": lambda url: (
        Embedder(url, MODEL, family=None, embed_dtype="float16").embed_documents
    ),
    "ragpair on Ollama": lambda url: Embedder(url, MODEL, family=None, engine="ollama").embed_documents,
    "LangChain OpenAIEmbeddings": lambda url: openai_embeddings(url).embed_documents,
    "LangChain OllamaEmbeddings": lambda url: ollama_embeddings(url).embed_documents,
    "LlamaIndex OpenAILikeEmbedding": lambda url: openai_like(url).get_text_embedding_batch,
    "LlamaIndex OllamaEmbedding": lambda url: ollama_embedding(url).get_text_embedding_batch,
}


def _rerank(url: str, documents: list[str]) -> None:
    """What the rerank clients of LangChain and LlamaIndex send to a server such as vLLM."""
    body = {"model": MODELS["rerank"], "query": QUERY, "documents": documents, "top_n": len(documents)}
    httpx.post(
        f"{url}/v1/rerank", content=orjson.dumps(body), headers={"content-type": "application/json"}
    ).raise_for_status()


RERANK: dict[str, Callable[[str], Callable[[list[str]], Any]]] = {
    "ragpair, Reranker.score": lambda url: partial(Reranker(url).score, QUERY),
    "a post to /v1/rerank": lambda url: partial(_rerank, url),
}


def measure(dims: Sequence[int], documents: int) -> Section:
    """All libraries at all widths, and both ways to rerank."""
    parts, targets = [], []
    for width in dims:
        rows, replies = _vectors(width)
        raw = FLOAT32 * width
        parts += [f"### {width} numbers a vector", ABOUT.format(texts=TEXTS, dims=width, raw=raw)]
        parts.append(table(("library", "requests", "sent a text", "received a vector", "to float32"), rows))
        for name, factor in (("ragpair", FLOAT32), ("ragpair, embed_dtype='float16'", FLOAT16)):
            promise = f"{name}, {width} numbers: bytes a vector at most base64's, and 80 around it"
            targets.append(at_most(promise, replies.get(name, float("nan")), factor * width * 4 / 3 + 80, " bytes"))
    passages = [f"{i}: {PASSAGE}" for i in range(documents)]
    parts += ["### Reranking", ABOUT_RERANK.format(count=documents, size=len(passages[0]))]
    rows, replies = _scores(passages)
    parts.append(table(("call", "requests", "sent", "received", "received a document"), rows))
    promise = "rerank: a score comes back, and not the document: at most 100 bytes a document"
    targets.append(at_most(promise, replies["ragpair, Reranker.score"] / documents, 100, " bytes"))
    packages = ("langchain-openai", "langchain-ollama", "llama-index-embeddings-openai-like")
    return Section("\n\n".join([*parts, machine(*packages)]), targets)


def _vectors(dims: int) -> tuple[list[list[str]], dict[str, float]]:
    texts = [f"text number {i}, a short passage about nothing in particular" for i in range(TEXTS)]
    rows, replies = [], {}
    with running_stub(Settings(dims=dims)) as url:
        for name, make in EMBED.items():
            try:
                counts = _counted(url, make(url), texts)
            except (ImportError, TypeError) as exc:
                rows.append([name, "-", "-", "-", f"{type(exc).__name__}: {exc}"])
                continue
            sent, received = (counts[what] / TEXTS for what in ("received", "sent"))  # the server's words
            replies[name] = received
            ratio = f"{received / (FLOAT32 * dims):.2f}"
            rows.append([name, str(counts["requests"]), f"{sent:,.0f}", f"{received:,.0f}", ratio])
    return rows, replies


def _scores(documents: list[str]) -> tuple[list[list[str]], dict[str, float]]:
    rows, replies = [], {}
    with running_stub(Settings(task="rerank")) as url:
        for name, make in RERANK.items():
            counts = _counted(url, make(url), documents)
            sent, received = counts["received"], counts["sent"]
            replies[name] = float(received)
            each = f"{received / len(documents):,.0f}"
            rows.append([name, str(counts["requests"]), f"{sent:,}", f"{received:,}", each])
    return rows, replies


def _counted(url: str, call: Callable[[list[str]], Any], inputs: list[str]) -> dict[str, int]:
    call(inputs[:1])  # what is asked only once is not counted
    counted(url)
    call(inputs)
    return counted(url)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(prog=__spec__.name, description="Bytes on the wire.")
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024, 4096])
    parser.add_argument("--documents", type=int, default=100)
    script(parser, measure)


if __name__ == "__main__":
    main()
