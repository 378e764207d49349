"""The cassettes themselves: each says where it comes from, each is used, and nothing of a machine is left in them."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import servers
from .conftest import Play
from .recordings import CASSETTES, NOWHERE
from .servers import KEY, VLLM_MINILM, Server

FILES = sorted(CASSETTES.rglob("*.yaml"))
NAMES = {str(path.relative_to(CASSETTES).with_suffix("")) for path in FILES}

# What must stand at the top, besides `origin`, `server` and `model`.
HEADS = {"recorded": {"command"}, "assembled": {"command", "changed"}, "written": {"source"}}


def head(path: Path) -> dict[str, Any]:
    text = path.read_text().partition("\nversion:")[0]
    return dict(yaml.safe_load(text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_cassette_says_where_it_comes_from(path: Path) -> None:
    said = head(path)
    assert said.keys() == {"origin", "server", "model"} | HEADS[said["origin"]]
    assert all(said.values())
    if said["origin"] == "recorded":
        known = [value.head() for value in vars(servers).values() if isinstance(value, Server)]
        assert {key: value for key, value in said.items() if key != "origin"} in known
    if said["origin"] == "written":
        assert path.parent.name.endswith("-from-source")
        assert "not run" in said["server"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_cassette_holds_nothing_of_the_machine_that_made_it(path: Path) -> None:
    text = "interactions:" + path.read_text().partition("\ninteractions:")[2]
    assert not re.search(r"/(root|home|tmp|work|Users|usr)/", text)
    assert not re.search(r"localhost|127\.0\.0\.1", text)
    assert KEY not in text
    assert "uthorization" not in text
    assert set(re.findall(r"^    uri: (\w+://[^/]+)", text, re.MULTILINE)) == {NOWHERE}


def test_every_cassette_is_used_and_every_used_one_is_there() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    used = {name for source in sources for name in re.findall(r'wire\("([\w./-]+)"', source)}
    assert used == NAMES


def test_the_cassettes_stay_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 600_000


@pytest.mark.skipif("RAGPAIR_RECORD_URL" in os.environ, reason="says what playing back does")
def test_a_reply_that_nobody_asks_for_fails_its_test(wire: Play) -> None:
    with (
        pytest.raises(AssertionError, match=r"replies that were not asked for: \['GET /v1/models', "),
        wire("vllm/cards", VLLM_MINILM),
    ):
        pass
