"""What is checked in is what the scripts print: source for source, with plots, without errors, warnings or paths."""

import re

import jupytext
import pytest

from .execution import COOKBOOK, names, script, stored


@pytest.mark.parametrize("name", names())
def test_a_notebook_is_its_script(name: str) -> None:
    def sources(notebook: object) -> list[tuple[str, str]]:
        return [(cell.cell_type, cell.source) for cell in notebook.cells]  # type: ignore[attr-defined]

    assert sources(stored(name)) == sources(script(name)), f"python -m tests.cookbook.execution {name}"


@pytest.mark.parametrize("name", names())
def test_a_reader_of_the_page_sees_results(name: str) -> None:
    outputs = [output for cell in stored(name).cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs), "a table"
    assert not [output for output in outputs if output.output_type == "error"]
    text = "\n".join(str(output.get("text", "")) + str(output.get("data", "")) for output in outputs)
    assert "Warning" not in text
    assert not re.findall(r"site-packages|(?<![\w.:/<])/(?:home|root|tmp|work|Users)/\S*", text)


@pytest.mark.parametrize("name", names())
def test_it_ends_with_what_to_change(name: str) -> None:
    last = [cell.source for cell in script(name).cells if cell.cell_type == "markdown"][-1]
    assert "in production" in last or "生产环境" in last


@pytest.mark.parametrize("name", names())
def test_scripts_are_written_as_jupytext_writes_them(name: str) -> None:
    path = COOKBOOK / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    assert (
        jupytext.writes(jupytext.reads(text, fmt="py:percent"), fmt="py:percent").split("# %%", 1)[1]
        == (text.split("# %%", 1)[1])
    )
