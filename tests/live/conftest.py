"""Live tests: real engines, one at a time.

`served`, with `on(...)` of `launches.py`, is how a test asks for a server. `server` is for a test that must choose by
itself: `server("vllm-minilm")`. Either way at most one engine runs; asking for another ends the one before. An engine
that cannot be installed here skips its tests, one that does not start fails them.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .engines import EngineUnavailable
from .launches import StartServer, start
from .servers import EngineFailed, Server

TIMEOUT = 900  # seconds for a test's own body; installing and starting have deadlines of their own

STARTED = pytest.StashKey[dict[str, float]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.live)
            item.add_marker(pytest.mark.timeout(TIMEOUT, func_only=True))


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[StartServer]:
    """Starts the server of a row of `LAUNCHES`, or gives the running one."""
    times = pytestconfig.stash.setdefault(STARTED, {})
    running: dict[str, Server] = {}
    failed: dict[str, Exception] = {}  # a second try would take minutes and end the same
    with ExitStack() as processes:

        def get(name: str) -> Server:
            if name not in running and name not in failed:
                running.clear()
                processes.close()
                try:
                    running[name] = processes.enter_context(start(name))
                    times[name] = running[name].started_in
                except (EngineUnavailable, EngineFailed) as error:
                    failed[name] = error
            match failed.get(name):
                case None:
                    return running[name]
                case EngineUnavailable() as missing:
                    pytest.skip(str(missing))
                case failure:
                    raise failure

        yield get


@pytest.fixture(scope="session")
def served(request: pytest.FixtureRequest, server: StartServer) -> Server:
    """The server that `on(...)` names."""
    return server(request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if times := config.stash.get(STARTED, {}):
        terminalreporter.section("live servers: seconds to start")
        for name, seconds in times.items():
            terminalreporter.line(f"{name:24} {seconds:6.1f}")
