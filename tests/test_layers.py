"""Imports point down: the contracts in pyproject.toml hold."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_import_contracts(monkeypatch, capsys):
    importlinter = pytest.importorskip("importlinter.cli")
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("the tests of a wheel have no pyproject.toml beside them")
    monkeypatch.chdir(ROOT)
    status = importlinter.lint_imports(no_cache=True)
    assert status == 0, capsys.readouterr().out
