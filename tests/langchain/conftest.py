"""No setting of the machine reaches a test."""

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in os.environ:
        if name.startswith(("RAGPAIR_", "LANGCHAIN_", "LANGSMITH_")):
            monkeypatch.delenv(name)


@pytest.fixture
def no_executor(monkeypatch):
    """Fails whatever hands work of a coroutine to a thread."""

    def refuse(*args, **kwargs):
        raise AssertionError("an async call went to a thread")

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.run_in_executor", refuse)
