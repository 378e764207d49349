"""No setting of the machine reaches a test; what LlamaIndex is told can be read."""

import asyncio
import gc
import os

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from llamaindex_ragpair import RagpairEmbedding, RagpairRerank


class Recorder(BaseEventHandler):
    events: list

    @classmethod
    def class_name(cls):
        return "Recorder"

    def handle(self, event, **kwargs):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("RAGPAIR_"):
            monkeypatch.delenv(name)


@pytest.fixture
def told():
    """The events of LlamaIndex's dispatcher during the test."""
    root, recorder = get_dispatcher(), Recorder(events=[])
    root.add_event_handler(recorder)
    yield recorder
    root.event_handlers.remove(recorder)


@pytest.fixture
def no_executor(monkeypatch):
    """Fails whatever hands work of a coroutine to a thread."""

    def refuse(*args, **kwargs):
        raise AssertionError("an async call went to a thread")

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.run_in_executor", refuse)


@pytest.fixture
def own_loop():
    """LlamaIndex's asyncio_run uses the thread's event loop where there is one; it is never closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def abandoned():
    """For tests in which LlamaIndex's asyncio_run closes loops under their connections.

    Those are dropped when the object is used on the next loop: await `abandoned(a call)` at the end, and mark the test
    with `filterwarnings("ignore:unclosed:ResourceWarning")`.
    """

    async def drop(coroutine):
        await asyncio.to_thread(asyncio.run, coroutine)
        gc.collect()

    return drop


@pytest.fixture
def embedding():
    """Makes embeddings of a server, and closes their connections after the test."""
    made = []

    def make(server, **settings):
        made.append(RagpairEmbedding(base_url=getattr(server, "url", server), **settings))
        return made[-1]

    yield make
    for each in made:
        each.embedder.close()


@pytest.fixture
def rerank():
    """The same for rerankers."""
    made = []

    def make(server, **settings):
        made.append(RagpairRerank(base_url=getattr(server, "url", server), **settings))
        return made[-1]

    yield make
    for each in made:
        each.reranker.close()
