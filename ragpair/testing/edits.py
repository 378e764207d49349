"""Replies that are not what was asked for, for `Fault.edit`: each changes the JSON of any engine, vectors or scores.

What is changed stands in the last row. Ollama's vectors and SGLang's scores of prompts carry no index: there `shuffled`
is a fault that no client can see, and `no_index` and `same_index` raise `ValueError`. Ollama scores one document a
request: the rows of such a reply are its answer's tokens.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

import numpy as np
import orjson

_LISTS = ("data", "embeddings", "results", "scores", "logprobs")
_SCORES = ("score", "relevance_score")


def one_missing(reply: Any) -> None:
    """One row less than texts."""
    _rows(reply).pop()


def one_too_many(reply: Any) -> None:
    """One row more than texts, with the next index."""
    rows = _rows(reply)
    row = copy.deepcopy(rows[-1])
    if isinstance(row, dict) and "index" in row:
        row["index"] = len(rows)
    rows.append(row)


def shuffled(reply: Any) -> None:
    """The rows in another order, each with its own index: allowed, as of rerank routes."""
    _rows(reply).reverse()


def no_index(reply: Any) -> None:
    """A row that does not say whose it is."""
    _indexed(reply)[-1].pop("index")


def same_index(reply: Any) -> None:
    """Two rows for one text; where there is one text, none is missing besides."""
    rows = _indexed(reply)
    if len(rows) == 1:
        rows.append(copy.deepcopy(rows[0]))
    rows[-1]["index"] = rows[0]["index"]


def nan(reply: Any) -> None:
    """A number that is none: NaN in base64, and null in JSON, which has no NaN (vLLM does the same)."""
    _spoil(_rows(reply)[-1], float("nan"))


def null(reply: Any) -> None:
    """A null among the numbers; what was base64 becomes a list."""
    _spoil(_rows(reply)[-1], None)


def narrow(reply: Any) -> None:
    """A vector that is one number short; scores have no width, and raise `ValueError`."""
    rows = _rows(reply)
    row = rows[-1]
    if isinstance(row, dict) and "embedding" in row:
        row["embedding"] = _numbers(row["embedding"])[:-1]
    elif isinstance(row, list) and "embeddings" in reply:
        row.pop()
    else:
        raise ValueError("this reply holds no vectors")


def truncated(reply: Any) -> bytes:
    """Its JSON to the middle, with the length that goes with it: HTTP is content."""
    whole = orjson.dumps(reply)
    return whole[: len(whole) // 2]


def _rows(reply: Any) -> list[Any]:
    """What stands in the reply once a text."""
    if isinstance(reply, list):
        return reply
    for name in _LISTS:
        if isinstance(reply.get(name), list):
            rows: list[Any] = reply[name]
            return rows
    raise ValueError("this reply holds neither vectors nor scores")


def _indexed(reply: Any) -> list[Any]:
    rows = _rows(reply)
    if not (isinstance(rows[-1], dict) and "index" in rows[-1]):
        raise ValueError("the rows of this reply carry no index")
    return rows


def _spoil(row: Any, value: float | None) -> None:
    """Put the value in place of the row's number, or of one of its numbers."""
    if isinstance(row, list):
        row[0] = value
    elif "embedding" in row:
        numbers = _numbers(row["embedding"])
        numbers[0] = value
        coded = isinstance(row["embedding"], str) and value is not None
        row["embedding"] = base64.b64encode(np.array(numbers, "<f4").tobytes()).decode() if coded else numbers
    elif "probs" in row:
        row["probs"][0] = value
    elif score := next((name for name in _SCORES if name in row), None):
        row[score] = value
    else:  # an answer's first token, by how likely it was to be another
        token = row["completion_probabilities"][0] if "completion_probabilities" in row else row
        for likely in token["top_logprobs"]:
            likely["logprob"] = value


def _numbers(vector: Any) -> list[Any]:
    return np.frombuffer(base64.b64decode(vector), "<f4").tolist() if isinstance(vector, str) else list(vector)
