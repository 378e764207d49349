"""What the package exports, and what it says when something is missing."""

import importlib
import sys

import pytest

import llamaindex_ragpair


def forget(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "llamaindex_ragpair":
            monkeypatch.delitem(sys.modules, name)


def test_public_names():
    assert llamaindex_ragpair.__all__ == sorted(llamaindex_ragpair.__all__)
    for name in llamaindex_ragpair.__all__:
        assert getattr(llamaindex_ragpair, name).__name__ == name
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = llamaindex_ragpair.nonesuch


def test_without_llama_index(monkeypatch):
    forget(monkeypatch)
    monkeypatch.setitem(sys.modules, "llama_index.core", None)
    with pytest.raises(ImportError, match=r'pip install "ragpair\[llamaindex\]"'):
        importlib.import_module("llamaindex_ragpair")


def test_without_qdrant_edge(monkeypatch):
    forget(monkeypatch)
    monkeypatch.delitem(sys.modules, "ragpair.bm25", raising=False)
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    again = importlib.import_module("llamaindex_ragpair")
    assert again.RagpairEmbedding
    with pytest.raises(ImportError, match=r'pip install "ragpair\[llamaindex,qdrant\]"'):
        _ = again.RagpairSparseEncoder
