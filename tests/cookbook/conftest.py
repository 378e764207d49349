"""The notebooks: each is executed on the embedded models, and its numbers must be those that its text speaks of.

`executed("customer_service")` runs one and returns its headline. The sets that are not ours to check in are taken from
RAGPAIR_DATA, or from shared/data beside the clone; without either, `labelled` skips.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
BESIDE = HERE.parents[2] / "shared" / "data"

# Without `ragpair[cookbook]` there is nothing to run; `make cookbook` has it, and fails if no test runs.
collect_ignore_glob = [] if importlib.util.find_spec("jupytext") else ["test_*.py"]

# Fixtures that several tests share: these run in one process, or each process would execute the notebooks anew.
_EXECUTED_ONCE = {"english", "chinese", "llamaindex"}

Executed = Callable[..., dict[str, Any]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cookbook)
            item.add_marker(pytest.mark.timeout(900, func_only=True))
            if _EXECUTED_ONCE & {*getattr(item, "fixturenames", ())}:
                item.add_marker(pytest.mark.xdist_group("executed once"))


@pytest.fixture(scope="session")
def executed() -> Executed:
    """Executes a notebook, and returns its headline, which must be that of the notebook that is checked in."""
    from .execution import execute, stored

    def run(name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        _, headline = execute(name, parameters)
        if parameters is None:
            # Other processors round the embedded models' 8 bits otherwise: a question or two may change sides.
            assert headline == pytest.approx(stored(name).metadata["headline"], rel=0.05, abs=0.03)
        return headline

    return run


@pytest.fixture
def labelled(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the labelled sets; notebooks find it, too."""
    folder = Path(os.environ.get("RAGPAIR_DATA", BESIDE))
    if not folder.is_dir():
        pytest.skip("the labelled sets are not here: RAGPAIR_DATA names their folder")
    monkeypatch.setenv("RAGPAIR_DATA", str(folder))
    return folder
