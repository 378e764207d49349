"""An embedding model as an ONNX graph: tokens in, one hidden row a token out; pooled it is the vector of the text.

Texts of one call are sorted by length and run in batches padded to their longest. onnxruntime works outside all locks,
so calls from several threads run at the same time.

onnxruntime 1.29 and newer reports to its maker from Linux and macOS unless told otherwise, and its uploader makes a
forked child hang when it exits. An engine that promises to stay in the process tells it otherwise before loading it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ragpair.errors import ConfigurationError
from ragpair.local import late_interaction
from ragpair.local.late_interaction import Reading, Readings
from ragpair.local.models import Card, Refused, Vectors, cores, require, too_long

BATCH = 16
PADDED_TOKENS = 16 * 512  # of one batch: long texts go in smaller batches, lest attention eat the memory
_FEEDS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_OUTPUTS = ("last_hidden_state", "token_embeddings")

Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done around the graph.

    Attributes:
        name: Name of the model here.
        root: The repository that it comes from, or its folder.
        limit: Tokens that one text may have, special tokens included.
        pooling: How token rows become one vector.
        normalize: Whether the vector is divided by its length.
        lowercase: Whether texts are lower-cased before the tokenizer sees them.
        languages: As in `Card`.
    """

    name: str
    root: str
    limit: int
    pooling: Pooling
    normalize: bool = True
    lowercase: bool = False
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: list[int]
    special: list[int]  # 1 where the tokenizer added the token itself
    length: int  # before any cut


class OnnxModel:
    """A graph, its tokenizer, and the recipe.

    Args:
        recipe: What is done around the graph.
        graph: Its file, or its bytes.
        tokenizer: A `tokenizers.Tokenizer`, which this model now owns.

    Raises:
        ConfigurationError: The graph cannot be run as an embedding model.
    """

    def __init__(self, recipe: Recipe, graph: str | bytes, tokenizer: Any) -> None:
        tokenizer.no_truncation()  # some tokenizer.json cut at 128 tokens and pad to 128
        tokenizer.no_padding()
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._readings = Readings()
        try:
            self._session = _session(graph)
            self._feeds = {feed.name: feed.type for feed in self._session.get_inputs()}
            outputs = [output.name for output in self._session.get_outputs()]
        except ConfigurationError:
            raise
        except Exception as exc:  # onnxruntime's own errors have no common base but this
            raise ConfigurationError(f"{recipe.name}: onnxruntime cannot load the ONNX model: {exc}") from exc
        strange = sorted(self._feeds.keys() - set(_FEEDS))
        if strange or not {"input_ids", "attention_mask"} <= self._feeds.keys():
            raise ConfigurationError(
                f"{recipe.name}: the ONNX model wants the inputs {', '.join(self._feeds)}; this engine gives "
                f"{', '.join(_FEEDS)}. Export the model for feature extraction, without a key-value cache."
            )
        self._output = next((name for name in _OUTPUTS if name in outputs), "")
        if not self._output:
            raise ConfigurationError(
                f"{recipe.name}: the ONNX model gives {', '.join(outputs)}; this engine needs last_hidden_state. "
                "Export the model for feature extraction."
            )
        self.card = Card(recipe.name, recipe.root, recipe.limit, self._try_out(), recipe.languages, reranks=True)

    def embed(self, texts: Sequence[str], *, truncate: bool) -> tuple[Vectors, int]:
        """One vector a text, and how many tokens went through the model."""
        tokens = [self._tokenize(text, truncate) for text in texts]
        for i, one in enumerate(tokens):
            self._check_length("input", i, one.length, truncate)
            if not one.ids:
                raise Refused(400, f"the input at index {i} gives no token at all", param="input", index=i)
        vectors = np.empty((len(texts), self.card.dims), np.float32)
        for i, rows in self._run(tokens):
            vectors[i] = self._pool(rows)
        if self._recipe.normalize:
            vectors = _unit(vectors)
        return vectors, sum(len(one.ids) for one in tokens)

    def score(self, query: str, documents: Sequence[str], *, truncate: bool) -> list[float]:
        """One score a document by late interaction."""
        asked = self._tokenize(query, truncate)
        self._check_length("query", None, asked.length, truncate)
        if all(asked.special):
            raise Refused(400, "the query gives no token at all", param="query", index=None)
        known = {text: self._readings.get(text) for text in documents}
        unread = {text: self._tokenize(text, truncate) for text, reading in known.items() if reading is None}
        for i, text in enumerate(documents):
            reading = known[text]
            self._check_length("document", i, reading.length if reading else unread[text].length, truncate)
        asked_reading, *fresh = self._read([asked, *unread.values()])
        read = {text: reading for text, reading in known.items() if reading is not None}
        for text, reading in zip(unread, fresh, strict=True):
            read[text] = reading
            self._readings.put(text, reading)
        scores = dict(zip(read, late_interaction.score(asked_reading, list(read.values())), strict=True))
        return [scores[text] for text in documents]

    # --- texts to tokens -------------------------------------------------------------------------------------------

    def _tokenize(self, text: str, truncate: bool) -> _Tokens:
        # One by one: encode_batch starts a thread pool of its own, which forking does not survive either.
        text = text.lower() if self._recipe.lowercase else text
        encoding = self._tokenizer.encode(text)
        length = len(encoding.ids)
        if truncate and length > self._recipe.limit:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            encoding.truncate(self._recipe.limit - self._tokenizer.num_special_tokens_to_add(False))
            encoding = self._tokenizer.post_process(encoding)
        return _Tokens(encoding.ids, encoding.special_tokens_mask, length)

    def _check_length(self, what: str, index: int | None, length: int, truncate: bool) -> None:
        if length > self._recipe.limit and not truncate:
            raise too_long(what, index, length, self._recipe.limit)

    # --- tokens to rows --------------------------------------------------------------------------------------------

    def _run(self, texts: Sequence[_Tokens]) -> Iterator[tuple[int, Vectors]]:
        """(position, one row a token) of each text, shortest texts first."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
        while order:
            size = 1
            while size < min(BATCH, len(order)) and (size + 1) * len(texts[order[size]].ids) <= PADDED_TOKENS:
                size += 1
            batch, order = order[:size], order[size:]
            hidden = self._forward([texts[i].ids for i in batch])
            for row, i in enumerate(batch):
                yield i, hidden[row, : len(texts[i].ids)]

    def _forward(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        shape = len(batch), max(1, len(batch[-1]))  # the last is the longest
        arrays = {name: np.zeros(shape, np.int64) for name in _FEEDS}
        arrays["position_ids"][:] = np.arange(shape[1])
        for row, ids in enumerate(batch):
            arrays["input_ids"][row, : len(ids)] = ids
            arrays["attention_mask"][row, : len(ids)] = 1
        feeds = {
            name: arrays[name].astype(np.int32 if kind == "tensor(int32)" else np.int64, copy=False)
            for name, kind in self._feeds.items()
        }
        hidden: NDArray[np.float32] = self._session.run([self._output], feeds)[0].astype(np.float32, copy=False)
        return hidden

    def _try_out(self) -> int:
        """The width of the rows, from two short texts of different lengths."""
        try:
            texts = [self._tokenize(text, truncate=True) for text in ("a", "a b")]
            [width] = {rows.shape[1] for _, rows in self._run(texts)}
        except Exception as exc:  # whatever it is, this model cannot be used
            raise ConfigurationError(f"{self._recipe.name}: the ONNX model fails on two words: {exc}") from exc
        return int(width)

    # --- rows to vectors -------------------------------------------------------------------------------------------

    def _pool(self, rows: Vectors) -> Vectors:
        if not len(rows):
            return np.zeros(self.card.dims, np.float32)
        vector: Vectors = {"mean": rows.mean(axis=0), "cls": rows[0], "last": rows[-1]}[self._recipe.pooling]
        return vector

    def _read(self, texts: Sequence[_Tokens]) -> list[Reading]:
        readings: dict[int, Reading] = {}
        for i, rows in self._run(texts):
            content = rows[np.asarray(texts[i].special) == 0]
            readings[i] = Reading(_unit(self._pool(rows)[None])[0], _unit(content), texts[i].length)
        return [readings[i] for i in range(len(texts))]


def _unit(rows: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays one."""
    unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _session(graph: str | bytes) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = require("onnxruntime", "local")
    onnxruntime.disable_telemetry_events()  # where another package imported it before us
    options = onnxruntime.SessionOptions()
    # onnxruntime's own default counts cores that a container does not have, and pins its threads to them. Idle threads
    # sleep: by default they spin for more work, and on a busy machine that halves the speed.
    options.intra_op_num_threads = cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
