"""Executes a notebook of cookbook/ as a reader would, from its paired script, with the kernel of this environment.

    python -m tests.cookbook.execution customer_service ...     writes cookbook/NAME.ipynb anew, with its outputs

The scripts are what is edited and read in diffs; the notebooks are what they print. Each script has one cell tagged
"parameters" with the models and the Qdrant, and ends with a dictionary `headline` of the numbers that its text speaks
of. `execute` may set the parameters to something else, as papermill does, and returns the numbers with the notebook.
"""

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError

COOKBOOK = Path(__file__).parents[2] / "cookbook"
TIMEOUT = 400  # seconds for a cell; the longest takes 30 on an idle machine, and 100 with a real engine beside it

Notebook = nbformat.NotebookNode


def names() -> list[str]:
    """The notebooks there are."""
    return sorted(path.stem for path in COOKBOOK.glob("*.py") if path.read_text(encoding="utf-8").startswith("# ---"))


def script(name: str) -> Notebook:
    """The notebook that a script is, without outputs."""
    return jupytext.read(COOKBOOK / f"{name}.py")


def stored(name: str) -> Notebook:
    """The notebook as it is checked in."""
    return nbformat.read(COOKBOOK / f"{name}.ipynb", as_version=4)


def execute(name: str, parameters: Mapping[str, Any] | None = None) -> tuple[Notebook, dict[str, Any]]:
    """The notebook with its outputs, and its headline.

    Args:
        name: Which one.
        parameters: What to set after the cell tagged "parameters": literals by their names.

    Raises:
        CellExecutionError: A cell failed; the message shows it with its traceback.
    """
    notebook = script(name)
    if parameters:
        tagged = [index for index, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1, f"{name} has {len(tagged)} cells tagged parameters"
        lines = [f"{key} = {value!r}" for key, value in parameters.items()]
        notebook.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    notebook.cells.append(nbformat.v4.new_code_cell("import json\n\nprint(json.dumps(headline))"))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    try:
        done = _run(notebook)
    except CellTimeoutError as exc:
        # A kernel was once seen to fall silent, at a load of ten and without work of its own; twelve runs on purpose
        # did not show it again.
        print(f"{name}: once more, since a cell did not end: {str(exc)[:300]}", file=sys.stderr)  # noqa: T201
        done = _run(notebook)
    headline: dict[str, Any] = json.loads(done.cells.pop().outputs[0].text)
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)  # times of execution
    return done, headline


def _run(notebook: Notebook) -> Notebook:
    done = deepcopy(notebook)
    client = NotebookClient(
        done,
        timeout=TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,  # of a progress bar, what is seen at the end
        resources={"metadata": {"path": str(COOKBOOK)}},
    )
    asyncio.run(client.async_execute())
    return done


def _steady(output: Notebook, index: int) -> None:
    """Leave out what is another with each execution and says nothing, so that diffs show what has changed."""
    data = output.get("data", {})
    if "text/html" in data:  # the id that pandas makes up for a styled table
        data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}(?![0-9a-f])", f"T_{index:02d}", data["text/html"])
    if "text/plain" in data:
        data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data["text/plain"])
    if output.get("name") == "stderr":  # how fast a progress bar went
        output["text"] = re.sub(r" \[\d\d:\d\d<[^\]]*\]", "", output["text"])


def write(name: str) -> dict[str, Any]:
    """Execute a notebook and check it in beside its script; what it found is in its metadata, too."""
    notebook, headline = execute(name)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index:02d}"  # jupytext makes them up anew each time
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)  # sliders need a kernel
            _steady(output, index)
    notebook.metadata["headline"] = headline
    notebook.metadata.pop("widgets", None)  # their state
    nbformat.write(notebook, COOKBOOK / f"{name}.ipynb")
    return headline


if __name__ == "__main__":
    for chosen in sys.argv[1:] or names():
        print(chosen, json.dumps(write(chosen), indent=2))  # noqa: T201
