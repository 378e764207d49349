"""`ragpair launch`: prints how to start a server of a model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import ragpair
from ragpair.errors import ConfigurationError
from ragpair.launch import Flag, Launch, Memory, facts, plan, show


class EngineName(StrEnum):
    """What serves."""

    vllm = "vllm"
    sglang = "sglang"
    ollama = "ollama"


class TaskName(StrEnum):
    """What the model does."""

    embed = "embed"
    rerank = "rerank"


def launch(
    model: Annotated[
        str,
        typer.Argument(
            help="A repository such as BAAI/bge-m3, a folder with a model, or an Ollama name.", metavar="MODEL"
        ),
    ],
    engine: Annotated[EngineName, typer.Option(help="What shall serve it.")],
    task: Annotated[
        TaskName | None, typer.Option(help="What the model is for; known for the models of `ragpair models`.")
    ] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(min=1, help="GB of one GPU. The command is made to fit, or you hear what would.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, max=64, help="GPUs to split the model over.")] = 1,
    max_tokens: Annotated[
        int | None, typer.Option(min=16, help="Longest text to serve; by default what the model takes, or what fits.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the server; by default the engine's.")
    ] = None,
    engine_version: Annotated[
        str | None, typer.Option(help="Version of the engine; by default the newest that is known here.")
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(help="Size of the model, such as 8B, for the estimate where it is not known here.")
    ] = None,
    write_template: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the model's chat template there and let the server read it: for other clients than ragpair, "
            "which needs none.",
        ),
    ] = None,
    compose: Annotated[
        bool, typer.Option("--compose", help="Print a docker compose file instead, with Qdrant beside the server.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the command that starts a server of MODEL, with a reason for each flag and the memory that it takes.

    Nothing is started. Examples:

    ragpair launch Qwen/Qwen3-Embedding-8B --engine vllm --gpus 2 --gpu-memory 24

    ragpair launch BAAI/bge-reranker-v2-m3 --engine sglang

    ragpair launch bge-m3 --engine ollama --compose > compose.yaml
    """
    planned = plan(
        model,
        engine.value,
        task=task.value if task else None,
        version=engine_version,
        gpus=gpus,
        gpu_memory=gpu_memory,
        max_tokens=max_tokens,
        parameters=parameters,
        port=port,
        template_dir=None if write_template is None else write_template.as_posix(),
    )
    if write_template is not None:
        _write_template(planned, write_template)
    composed = show.compose(planned, None if write_template is None else write_template.as_posix()) if compose else None
    if as_json:
        found = show.as_dict(planned) | ({"compose": composed} if composed is not None else {})
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    elif composed is not None:
        typer.echo(composed, nl=False)
    else:
        _print(planned)


def _write_template(launch: Launch, folder: Path) -> None:
    source = Path(ragpair.__file__).parent / "templates" / launch.engine / f"{launch.template}.jinja"
    target, text = folder / source.name, source.read_bytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.read_bytes() != text:
            raise ConfigurationError(
                f"{target} is there already and is another file. Remove it, or name another folder."
            )
        target.write_bytes(text)
    except OSError as exc:
        raise ConfigurationError(f"--write-template {folder}: {exc.strerror or exc}.") from exc


def _print(launch: Launch) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    what = "embeddings" if launch.task == "embed" else "reranking"
    console.print(f"# {launch.model} for {what}, on {facts.engine(launch.engine).title} {launch.version}", style="bold")
    console.print(show.shell(launch))
    if flags := [flag for flag in (*launch.server.environment, *launch.server.flags) if flag.reason]:
        _section(console, "Why", _reasons(flags))
    if launch.memory is not None:
        _section(
            console, "Memory of each GPU, estimated" if launch.gpus > 1 else "Memory, estimated", _sum(launch.memory)
        )
    _section(console, "In ragpair", Text(show.usage(launch)))
    if launch.cautions:
        grid = Table.grid(padding=(0, 1))
        for caution in launch.cautions:
            grid.add_row("-", Text(caution))
        _section(console, "Mind", grid)


def _section(console: Console, title: str, content: Table | Text) -> None:
    console.print()
    console.print(title, style="bold")
    console.print(Padding(content, (0, 0, 0, 2), expand=False), soft_wrap=False)


def _reasons(flags: list[Flag]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for flag in flags:
        grid.add_row(Text(flag.name, no_wrap=True), Text(flag.reason))
    return grid


def _sum(memory: Memory) -> Table:
    grid = Table.grid(padding=(0, 2))
    for term in memory.terms:
        grid.add_row(Text(f"{term.gib:5.1f} GiB", no_wrap=True), Text(term.name, no_wrap=True), Text(term.how))
    fits = f"fits a GPU of {memory.card} GB" if memory.card else "fits no GPU"
    share = f": the engine takes about {memory.share:.0%} of one, so {memory.needed:.1f} are needed"
    grid.add_row(
        Text(f"{memory.gib:5.1f} GiB", no_wrap=True),
        Text("sum", no_wrap=True),
        Text(("without what is missing, it " if memory.unknown else "") + fits + share * (memory.share < 1)),
    )
    if memory.unknown:
        grid.add_row(Text("    ?"), Text("missing"), Text(memory.unknown))
    return grid
