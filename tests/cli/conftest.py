"""The command as a user runs it, in this process."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from ragpair import cli


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]

    @property
    def words(self) -> str:
        """All that was said, without line breaks."""
        return " ".join((self.out + self.err).split())


Command = Callable[..., Ran]


@pytest.fixture
def ragpair(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`ragpair("embed", "texts.txt")` runs that command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("BASE_URL", "API_KEY", "RERANK_BASE_URL", "RERANK_API_KEY"):
        monkeypatch.delenv(f"RAGPAIR_{name}", raising=False)

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr("sys.argv", ["ragpair", *map(str, arguments)])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capsys.readouterr()
        return Ran(int(end.value.code or 0), shown.out, shown.err)

    return run
