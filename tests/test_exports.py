"""What can be imported, and what importing it costs."""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

import ragpair
from ragpair import errors

HEAVY = [
    "langchain",
    "langchain_core",
    "llama_index",
    "onnxruntime",
    "tokenizers",
    "torch",
    "qdrant_client",
    "typer",
    "rich",
]


@pytest.mark.parametrize("name", ["ragpair", "ragpair.testing"])
def test_all_is_alphabetical_and_there(name):
    module = import_module(name)
    assert list(module.__all__) == sorted(module.__all__)
    assert [x for x in module.__all__ if not hasattr(module, x)] == []


def test_all_errors_are_exported():
    own = {name for name, x in vars(errors).items() if isinstance(x, type) and x.__module__ == errors.__name__}
    assert own <= set(ragpair.__all__)


@pytest.mark.parametrize("name", ragpair.__all__)
def test_what_is_exported_says_what_it_is(name):
    thing = getattr(ragpair, name)
    assert inspect.getdoc(thing)
    for method, function in inspect.getmembers(thing, inspect.isfunction):
        if not method.startswith("_"):
            assert inspect.getdoc(function), method


def test_version():
    assert ragpair.__version__ == version("ragpair")


@pytest.mark.parametrize("name", ["ragpair", "ragpair.testing"])
def test_importing_brings_no_framework_and_no_engine(name):
    code = f"import sys, {name}; print(*sorted({{m.partition('.')[0] for m in sys.modules}} & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert done.stderr == ""


def test_both_colours_take_the_same_arguments():
    for cls, names in ((ragpair.Embedder, ["embed_queries", "embed_documents"]), (ragpair.Reranker, ["score", "rank"])):
        for name in names:
            sync, awaited = (inspect.signature(getattr(cls, n)) for n in (name, f"a{name}"))
            assert sync == awaited
            assert inspect.iscoroutinefunction(getattr(cls, f"a{name}"))


def test_embedder_and_reranker_name_the_same_things_alike():
    embedder, reranker = (inspect.signature(cls).parameters for cls in (ragpair.Embedder, ragpair.Reranker))
    for name in embedder.keys() & reranker.keys() - {"batch_size", "too_long"}:
        assert embedder[name] == reranker[name]
