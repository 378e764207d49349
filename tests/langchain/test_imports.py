"""What the package offers, and what it says when something is not installed."""

import subprocess
import sys

import pytest

import langchain_ragpair


def test_the_public_names():
    assert langchain_ragpair.__all__ == [
        "RagpairEmbeddings",
        "RagpairRerank",
        "RagpairSignalBlend",
        "RagpairSparseEmbeddings",
    ]
    for name in langchain_ragpair.__all__:
        assert getattr(langchain_ragpair, name).__name__ == name
    with pytest.raises(AttributeError, match="RagpairChat"):
        _ = langchain_ragpair.RagpairChat


def last_line(code):
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return (ran.stderr or ran.stdout).strip().splitlines()[-1]


def test_without_langchain_it_names_the_extra():
    line = last_line("import sys; sys.modules['langchain_core'] = None; import langchain_ragpair")
    assert line == 'ImportError: langchain_ragpair needs LangChain: pip install "ragpair[langchain]"'


def test_importing_does_not_load_qdrant():
    assert last_line("import sys, langchain_ragpair; print([m for m in sys.modules if 'qdrant' in m])") == "[]"


@pytest.mark.parametrize("module", ["langchain_qdrant", "qdrant_edge"])
def test_sparse_vectors_name_their_extra(monkeypatch, module):
    for mine in ("langchain_ragpair.sparse", "ragpair.bm25"):
        monkeypatch.delitem(sys.modules, mine, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "ragpair\[langchain,qdrant\]"'):
        _ = langchain_ragpair.RagpairSparseEmbeddings
