"""The fixture that plays cassettes back, and the rule that all of them are used."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from .recordings import Wire, play
from .servers import Server

Play = Callable[..., AbstractContextManager[Wire]]


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Play:
    """`with wire("vllm/embeddings", VLLM_MINILM) as w:` plays that cassette back on `w.url`.

    With `--record-mode=once` (only if the file is missing) or `--record-mode=rewrite`, it is recorded from the server
    at RAGPAIR_RECORD_URL instead.
    """
    # The option belongs to pytest-recording, which comes with langchain-tests; its own cassettes are not used here.
    mode = request.config.getoption("--record-mode", default=None) or "none"

    def start(name: str, server: Server | None = None) -> AbstractContextManager[Wire]:
        return play(name, server, record_mode=str(mode), record_url=os.environ.get("RAGPAIR_RECORD_URL"))

    return start
