"""A model server for tests: real HTTP on a free port of this machine, no model, no GPU, no network.

    from ragpair import Embedder
    from ragpair.testing import Fault, FakeServer

    with FakeServer("vllm", model="Qwen/Qwen3-Embedding-0.6B") as server:
        server.fail(Fault(status=503))  # the next request finds it busy
        Embedder(server.url).embed_queries(["where is my parcel?"])
        assert server.texts[-1].startswith("Instruct: ")

It speaks the routes, replies and errors of vLLM, SGLang, Ollama and llama.cpp as they were recorded, so any client of
those engines can be tested against it, sync or async. Vectors and scores are made from the words that texts share:
the same on every run and machine, and close enough to meaning for a test to assert what is found first.

`Fault` says what goes wrong, and `edits` how a reply can be none; docs/testing.md lists both.
"""

from ragpair.testing import edits
from ragpair.testing.engines import Engine, Task
from ragpair.testing.faults import Fault
from ragpair.testing.listener import Request
from ragpair.testing.server import FakeServer

__all__ = ["Engine", "FakeServer", "Fault", "Request", "Task", "edits"]
