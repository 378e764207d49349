"""Which models there are, and one loaded copy of each per process.

Two names stand for models that come as Python packages; any other name is a folder (see `folder`).

A forked child must not touch the models of its parent: the threads behind them were not forked, so to run a model
waits forever, and so does to free it. The child forgets them without freeing them and loads its own when asked.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragpair.errors import ConfigurationError

Vectors = NDArray[np.float32]

MINILM = "all-MiniLM-L6-v2"
E5 = "multilingual-e5-small"
_NAMES = {
    MINILM: MINILM,
    f"sentence-transformers/{MINILM}": MINILM,
    E5: E5,
    f"intfloat/{E5}": E5,
}


class Refused(Exception):
    """A request that is answered with an error status.

    Attributes:
        status: HTTP status.
        facts: Further fields of the error object.
    """

    def __init__(self, status: int, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Card:
    """What a model is and can do.

    Attributes:
        name: Its name here.
        root: The Hugging Face repository that it comes from, or the folder.
        limit: Tokens that one text may have, special tokens included.
        dims: Width of its vectors.
        languages: ISO 639 codes; "mul" is many; nothing is not known.
        reranks: Whether it can score documents against a query.
    """

    name: str
    root: str
    limit: int
    dims: int
    languages: tuple[str, ...]
    reranks: bool


class Model(Protocol):
    """A loaded model; safe from any thread."""

    @property
    def card(self) -> Card:
        """What it is."""

    def embed(self, texts: Sequence[str], *, truncate: bool) -> tuple[Vectors, int]:
        """One vector a text, and how many tokens they were. Raises Refused."""

    def score(self, query: str, documents: Sequence[str], *, truncate: bool) -> list[float]:
        """One score a document, in the order of the documents. Raises Refused."""


def get(name: str | None) -> Model:
    """The model of that name, loaded at first use; None is the default one.

    Raises:
        Refused: 404, nothing has that name.
        ConfigurationError: It is there, but cannot be loaded.
    """
    known = MINILM if name is None else _NAMES.get(name)
    if known is None and not (name and Path(name).expanduser().is_dir()):
        raise Refused(
            404,
            f"no model {name!r} in the embedded engine; known: {MINILM}, {E5}, "
            "or a folder with model.onnx and tokenizer.json",
            param="model",
        )
    key = known or str(Path(str(name)).expanduser().resolve())
    model = _loaded.get(key)
    if model is None:
        with _loading:
            model = _loaded.get(key)
            if model is None:
                model = _loaded[key] = _load(key)
    return model


def require(module: str, extra: str) -> Any:
    """Import a module that an extra of this package installs.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ConfigurationError(
            f'base_url="local" needs the package {module!r}, which cannot be imported ({exc}). '
            f'Install it: pip install "ragpair[{extra}]"'
        ) from exc


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def too_long(what: str, index: int | None, length: int, limit: int) -> Refused:
    """The answer to a text over the limit."""
    where = what if index is None else f"{what} at index {index}"
    return Refused(
        400,
        f"the {where} has {length} tokens; this model takes {limit}",
        param="input_tokens",
        index=index,
        length=length,
        limit=limit,
    )


_loaded: dict[str, Model] = {}
_loading = threading.Lock()


def _load(key: str) -> Model:
    # Imported here, since each of these modules imports this one.
    if key == MINILM:
        from ragpair.local import minilm_int8

        return minilm_int8.load()
    if key == E5:
        from ragpair.local import e5

        return e5.load()
    from ragpair.local import folder

    return folder.load(key)


def _forget() -> None:
    global _loaded, _loading
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_loaded))  # never freed, not even when the child exits
    _loaded, _loading = {}, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
