"""Texts to vectors, with the model's own prompts, on any of the engines.

An Embedder finds out once, at first use, which engine answers, which model it serves and how it wants to be asked;
making one costs nothing and sends nothing. It is safe to share between threads, tasks and event loops, and it pickles:
a copy keeps the settings and opens connections of its own.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Literal, get_args, overload

import numpy as np

from ragpair import catalog, resolve
from ragpair.catalog import EmbeddingFamily, Match
from ragpair.client import Client, Look, Partial, partial, report, whole
from ragpair.dialects.base import Dialect, Served, Vectors
from ragpair.errors import ConfigurationError, InvalidInput, RagpairError
from ragpair.flows import EmbedJob, Report, embed, embed_chunk
from ragpair.options import EmbedDtype, Engine, OnError, OnTooLong
from ragpair.pace import Chunker
from ragpair.prompts import Prompt, Side, embedding_prompt, user_prompt
from ragpair.texts import check_many, check_text, check_texts
from ragpair.wire import Flow, send

Chunk = tuple[int, Vectors, dict[int, RagpairError]]

# Replicas of one model agree on this text: other precisions of the same weights to four digits, quantised ones not.
_PROBE = "Where is my parcel?"
_SAME = 0.999


class Embedder(Client):
    """Texts to vectors, with the model's own prompts, on any of the engines.

    Args:
        base_url: Address of the server, with or without "/v1"; several addresses are replicas of one model; "local" is
            the embedded engine, which runs in this process.
        model: Name of the model on the server; None takes the only one served.
        engine: "vllm", "sglang", "ollama" or "llamacpp"; "auto" asks the server.
        family: Whose prompts to use: "auto" looks the model's name up in the catalogue; the id of a family or of a
            model says it; None sends texts as they are.
        instruction: What queries look for, one English sentence, for families that take one; None is the default of
            the model's authors.
        query_prompt: In place of the family's: a prefix such as "query: ", or a template with {text}.
        document_prompt: The same for documents.
        dimensions: Width of the vectors, for models that were trained to be cut.
        too_long: What becomes of a text over the model's limit: "error", or "truncate" keeps its beginning.
        batch_size: Texts in one request at most; None is what suits the engine: 1,024 on vLLM and SGLang, 64 on Ollama,
            32 elsewhere. Requests start small and grow as the server shows what it can take.
        max_concurrency: Requests in flight at most, over everybody who shares the object. The first ones go two at a
            time; more follow as answers come, and fewer when the server is busy.
        timeout: Seconds to wait for the answer to one request.
        max_retries: How often to try again after faults that pass.
        api_key: As the server was started with.
        headers: More headers for every request.
        extra_body: More fields for the body of every embedding request, such as {"options": {"num_ctx": 8192}} for
            Ollama.
        embed_dtype: How vectors travel: "float16" halves the bytes on the wire, for vLLM 0.13 and newer. What is
            returned is float32 either way, with the precision of what travelled.

    Raises:
        ConfigurationError: An option that cannot be.

    All methods raise `InvalidInput` for what is no text, before anything is sent, and an `EndpointError` or
    `ConfigurationError` for what went wrong with the server. An error about a text has its `index`. With
    `on_error="return"`, errors about texts are returned beside the vectors of the others, in a `Partial`; so are those
    of a server that fails for good, for the texts that it had not done. A `ConfigurationError` is always raised.
    """

    _task = "embed"

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str | None = None,
        *,
        engine: Engine = "auto",
        family: str | None = "auto",
        instruction: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dimensions: int | None = None,
        too_long: OnTooLong = "error",
        batch_size: int | None = None,
        max_concurrency: int = 8,
        timeout: float = 120.0,
        max_retries: int = 3,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        embed_dtype: EmbedDtype = "float32",
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        settings["dimensions"] = whole("dimensions", dimensions)
        super().__init__(settings)
        self._matched: tuple[Match[EmbeddingFamily] | None] | None = None  # looked up once the model is known
        if embed_dtype not in get_args(EmbedDtype):
            raise ConfigurationError(f"embed_dtype={embed_dtype!r} is not known; it is 'float32' or 'float16'.")
        for prompt in (query_prompt, document_prompt):
            if prompt is not None:
                user_prompt(prompt, instruction if "{instruction}" in prompt else None)
        if family is not None and family != "auto":
            embedding_prompt(catalog.family(family, "embedding"), "query", instruction)

    @overload
    def embed_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, on_error: Literal["raise"] = "raise"
    ) -> Vectors: ...

    @overload
    def embed_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, on_error: Literal["return"]
    ) -> Partial[Vectors]: ...

    def embed_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, on_error: OnError = "raise"
    ) -> Vectors | Partial[Vectors]:
        """Vectors of what is searched for.

        Args:
            texts: Queries.
            instruction: Instead of the object's own, for these queries.
            on_error: "raise" the first error, or "return" what could be had, with the errors beside it.

        Returns:
            float32 [n, d], L2-normalised, in the order of the texts; [0, 0] for no texts. With on_error="return" these
            are the `values` of a `Partial`.
        """
        return self._sync.run(self._embed(texts, "query", instruction, on_error))

    @overload
    def embed_documents(self, texts: Sequence[str], *, on_error: Literal["raise"] = "raise") -> Vectors: ...

    @overload
    def embed_documents(self, texts: Sequence[str], *, on_error: Literal["return"]) -> Partial[Vectors]: ...

    def embed_documents(self, texts: Sequence[str], *, on_error: OnError = "raise") -> Vectors | Partial[Vectors]:
        """Vectors of what is searched in; otherwise like `embed_queries`."""
        return self._sync.run(self._embed(texts, "document", None, on_error))

    @overload
    async def aembed_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, on_error: Literal["raise"] = "raise"
    ) -> Vectors: ...

    @overload
    async def aembed_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, on_error: Literal["return"]
    ) -> Partial[Vectors]: ...

    async def aembed_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, on_error: OnError = "raise"
    ) -> Vectors | Partial[Vectors]:
        """Like `embed_queries`, awaited."""
        return await self._async.run(self._embed(texts, "query", instruction, on_error))

    @overload
    async def aembed_documents(self, texts: Sequence[str], *, on_error: Literal["raise"] = "raise") -> Vectors: ...

    @overload
    async def aembed_documents(self, texts: Sequence[str], *, on_error: Literal["return"]) -> Partial[Vectors]: ...

    async def aembed_documents(
        self, texts: Sequence[str], *, on_error: OnError = "raise"
    ) -> Vectors | Partial[Vectors]:
        """Like `embed_documents`, awaited."""
        return await self._async.run(self._embed(texts, "document", None, on_error))

    @overload
    def embed_documents_iter(
        self,
        texts: Iterable[str],
        *,
        on_error: Literal["raise"] = "raise",
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, Vectors]]: ...

    @overload
    def embed_documents_iter(
        self, texts: Iterable[str], *, on_error: Literal["return"], progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Vectors | RagpairError]]: ...

    def embed_documents_iter(
        self, texts: Iterable[str], *, on_error: OnError = "raise", progress: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, Vectors | RagpairError]]:
        """Vectors of any number of documents, in bounded memory.

        Texts are taken from the iterable as places in the requests become free, in the thread of whoever iterates; a
        bounded number of requests runs ahead of what was yielded. Nothing is sent before the first is asked for.

        Args:
            texts: Any iterable, a generator that reads a file, say.
            on_error: "raise" the first error, after all vectors before it; or "return" it in place of its vector.
            progress: Called with the number of texts that are done, once a request.

        Yields:
            The index of the text, and its vector: float32 [d], L2-normalised; in the order of the texts.
        """
        check_many(texts, "document")
        for chunk in self._stream(texts, "document", on_error):
            yield from _rows(chunk)
            if progress is not None:
                progress(chunk[0] + len(chunk[1]))

    def _embed_iter(self, texts: Iterable[str], side: Side) -> Iterator[Vectors | RagpairError]:
        """Like `embed_documents_iter` with on_error="return", for either side and without indexes: for whole files."""
        for chunk in self._stream(texts, side, "return"):
            for _, row in _rows(chunk):
                yield row

    def _stream(self, texts: Iterable[str], side: Side, on_error: OnError) -> Iterator[Chunk]:
        job = self._sync.run(self._job(side, None, report(on_error)))
        return self._sync.stream(_chunks(job, iter(texts)), job.dialect.in_flight)

    @overload
    def aembed_documents_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        on_error: Literal["raise"] = "raise",
        progress: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[tuple[int, Vectors]]: ...

    @overload
    def aembed_documents_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        on_error: Literal["return"],
        progress: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[tuple[int, Vectors | RagpairError]]: ...

    async def aembed_documents_iter(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        *,
        on_error: OnError = "raise",
        progress: Callable[[int], None] | None = None,
    ) -> AsyncGenerator[tuple[int, Vectors | RagpairError]]:
        """Like `embed_documents_iter`, for `async for`; the texts may come from an async iterable.

        Whoever leaves the loop early should close it, as any async generator: `contextlib.aclosing` does.
        """
        source = texts if isinstance(texts, AsyncIterable) else _as_async(texts)
        job = await self._async.run(self._job("document", None, report(on_error)))
        async with await self._async.stream(_achunks(job, source), job.dialect.in_flight) as chunks:
            async for chunk in chunks:
                for row in _rows(chunk):
                    yield row
                if progress is not None:
                    progress(chunk[0] + len(chunk[1]))

    def describe(self) -> dict[str, Any]:
        """What was found at the server and how texts are sent: engine, version, model, family, prompts, limit."""
        return self._sync.run(self._describe())

    def _describe(self) -> Flow[dict[str, Any]]:
        dialect, served, match = yield from self._look()
        return {
            "engine": dialect.name,
            "version": served.version,
            "model": served.model,
            "family": match.family.id if match else None,
            "query_prompt": self._prompt(match, "query", None).render("{text}"),
            "document_prompt": self._prompt(match, "document", None).render("{text}"),
            "limit": served.limit,
        }

    def _embed(
        self, texts: Sequence[str], side: Side, instruction: str | None, on_error: OnError
    ) -> Flow[Vectors | Partial[Vectors]]:
        kept = report(on_error)
        texts = check_texts(texts, side, failures=kept.failures if kept.keep else None)
        vectors = np.empty((0, self._settings["dimensions"] or 0), np.float32)
        if texts:
            vectors = yield from embed((yield from self._job(side, instruction, kept)), texts)
        return partial(vectors, kept)

    def _job(self, side: Side, instruction: str | None, report: Report) -> Flow[EmbedJob]:
        dialect, served, match = yield from self._look()
        prompt = self._prompt(match, side, instruction)
        dimensions, cut = resolve.widths(self._settings["dimensions"], match, dialect, served)
        return EmbedJob(**self._common(dialect, served, report), prompt=prompt, dimensions=dimensions, cut=cut)

    def _look(self) -> Flow[tuple[Dialect, Served, Match[EmbeddingFamily] | None]]:
        dialect, served = yield from self._connect()
        if self._matched is not None:
            return dialect, served, self._matched[0]
        match = resolve.embedding_match(self._settings["family"], self._settings["model"], served)
        resolve.check_pooling(match, served)
        own = self._settings["family"] is None or any(
            self._settings[f"{side}_prompt"] is not None for side in get_args(Side)
        )
        self._caution(*resolve.embedding_cautions(match, served, own_prompts=own))
        self._matched = (match,)
        return dialect, served, match

    def _prompt(self, match: Match[EmbeddingFamily] | None, side: Side, instruction: str | None) -> Prompt:
        told = instruction if instruction is not None else self._settings["instruction"]
        return resolve.prompt(match, side, self._settings[f"{side}_prompt"], told)

    def _configured(self, dialect: Dialect, served: Served) -> Dialect:
        return resolve.travelling(dialect, served, self._settings["embed_dtype"])

    def _sample(self, look: Look) -> Flow[tuple[Vectors, str]]:
        call = look.dialect.embed_call(look.served, [_PROBE], dimensions=None, truncate=False)
        reply = yield from send(call)
        if not reply.ok:
            raise look.dialect.refusal(reply, look.served, "embed")
        vector: Vectors = look.dialect.read_embeddings(reply, 1)[0]
        return vector, reply.endpoint

    def _agree(self, one: Vectors, other: Vectors) -> bool:
        return float(one @ other) >= _SAME * float(np.linalg.norm(one) * np.linalg.norm(other))


def _chunks(job: EmbedJob, texts: Iterator[str]) -> Iterator[Flow[Chunk]]:
    """The texts in flows, a request's worth each. An error of the iterable comes after the texts before it."""
    chunks, error = _Chunks(job), None
    try:
        for text in texts:
            if flow := chunks.add(text):
                yield flow
    except Exception as exc:
        error = exc
    if flow := chunks.rest():
        yield flow
    if error is not None:
        raise error


async def _achunks(job: EmbedJob, texts: AsyncIterable[str]) -> AsyncIterator[Flow[Chunk]]:
    """The same for an async iterable."""
    chunks, error = _Chunks(job), None
    try:
        async for text in texts:
            if flow := chunks.add(text):
                yield flow
    except Exception as exc:
        error = exc
    if flow := chunks.rest():
        yield flow
    if error is not None:
        raise error


class _Chunks:
    """Makes flows of texts that come one by one; those that are no texts go no further."""

    def __init__(self, job: EmbedJob) -> None:
        self._job, self._chunker = job, Chunker(job.pace)
        self._taken = self._sent = 0

    def add(self, text: str) -> Flow[Chunk] | None:
        """Take a text; the flow of a chunk, if one is full now."""
        index, report = self._taken, self._job.report
        try:
            check_text(text, f"document {index}", index)
        except InvalidInput as exc:
            if not report.keep:
                raise
            report.failures[index] = exc
        self._taken += 1
        return self._flow(self._chunker.add(text))

    def rest(self) -> Flow[Chunk] | None:
        """The flow of what is left."""
        return self._flow(self._chunker.rest())

    def _flow(self, chunk: list[str] | None) -> Flow[Chunk] | None:
        if not chunk:
            return None
        start, self._sent = self._sent, self._sent + len(chunk)
        return embed_chunk(self._job, start, chunk)


async def _as_async(texts: Iterable[str]) -> AsyncIterator[str]:
    check_many(texts, "document")
    for text in texts:
        yield text


def _rows(chunk: Chunk) -> Iterator[tuple[int, Vectors | RagpairError]]:
    """Rows as copies: who keeps one should not keep all of its request."""
    start, vectors, failures = chunk
    for index, row in enumerate(vectors, start):
        yield index, failures[index] if index in failures else row.copy()
