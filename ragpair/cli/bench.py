"""`ragpair bench`: throughput and latency of a server, at one setting or swept over several."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragpair.cli import output
from ragpair.cli.options import ApiKey, EngineName, EngineOption, Family, Json, Model, TaskName, Timeout, family_of
from ragpair.cli.rows import read_texts
from ragpair.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from ragpair.bench import Run

_BAR = 30  # characters


def bench(
    url: Annotated[str, typer.Argument(help="Address of the server, or 'local' for the embedded engine.")],
    task: Annotated[TaskName | None, typer.Option(help="What the model is for; by default that is found out.")] = None,
    concurrency: Annotated[str, typer.Option(help="Requests in flight; several, as in 1,8,32, are swept.")] = "8",
    batch_size: Annotated[str, typer.Option(help="Texts in a request, or documents; several are swept.")] = "32",
    requests: Annotated[int, typer.Option(min=1, help="Requests of each setting.")] = 64,
    words: Annotated[
        str, typer.Option(help="Words of a synthetic text: 64, 32..256 (uniform), or lognormal:128 (its median).")
    ] = "32..128",
    jsonl: Annotated[
        Path | None, typer.Option(help="Texts of your own: a JSONL file, or one text a line; '-' reads standard input.")
    ] = None,
    field: Annotated[str, typer.Option(help="Where the text is in a line of JSONL.")] = "text",
    seed: Annotated[int, typer.Option(help="Another seed makes other synthetic texts.")] = 0,
    plot: Annotated[Path | None, typer.Option(help='Also draw a PNG (pip install "ragpair[plot]").')] = None,
    model: Model = None,
    family: Family = "auto",
    engine: EngineOption = EngineName.auto,
    api_key: ApiKey = None,
    timeout: Timeout = 120,
    json: Json = False,
) -> None:
    """Measure how many texts a server embeds or reranks in a second, and how long a request takes.

    Keeps so many requests in flight, each with so many texts, and tells throughput and latency percentiles. With
    several values for --concurrency or --batch-size, all combinations run one after another. Texts must fit the model;
    vLLM and Ollama cut those that they embed.

    For example:

      ragpair bench http://localhost:8000

      ragpair bench http://localhost:8000 --concurrency 1,4,16 --batch-size 1,32 --plot sweep.png

      ragpair bench http://localhost:8001 --task rerank --jsonl documents.jsonl --field body
    """
    from ragpair.bench import connect, measure, synthetic
    from ragpair.doctor import Ask, task_of
    from ragpair.endpoint import Endpoint, parse_base_urls

    settings = list(itertools.product(_numbers(batch_size, "--batch-size"), _numbers(concurrency, "--concurrency")))
    draw = _drawer() if plot is not None else None
    own = [] if jsonl is None else [text for _, text in read_texts(jsonl, field)]
    if jsonl is not None and not own:
        raise InvalidInput(f"{jsonl} holds no texts.")
    if task is None:
        ask = Ask(model, family=family_of(family), engine=engine.value, api_key=api_key, timeout=timeout)
        task = TaskName(task_of(url, ask))
    endpoint = Endpoint(parse_base_urls(url), api_key=api_key, timeout=timeout)
    target = connect(endpoint, task.value, model=model, family=family_of(family), engine=engine.value)
    runs: list[Run] = []
    with output.progress() as bars:
        bar = bars.add_task("measuring", total=requests * len(settings))
        for size, in_flight in settings:
            texts = itertools.cycle(own) if own else synthetic(words, seed)
            run = measure(
                target,
                texts,
                concurrency=in_flight,
                batch_size=size,
                requests=requests,
                answered=lambda: bars.advance(bar),
            )
            runs.append(run)
    if json:
        output.write_json({"url": url, "task": task.value, "runs": [_as_json(run) for run in runs]})
    else:
        _show(task, runs)
    limits = [run.cut_at for run in runs if run.cut_at is not None]
    if limits:
        output.asides().print(f"Texts over {limits[0]} tokens were cut by the server.", markup=False, soft_wrap=True)
    if plot is not None and draw is not None:
        draw(plot, task, runs)
        output.asides().print(f"drawn: {plot}", markup=False, soft_wrap=True)
    if any(run.failed for run in runs):
        raise typer.Exit(output.FOUND)


def _numbers(text: str, option: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(
            f"{text!r} is no number, nor several with commas between them, as in 1,8,32.", param_hint=option
        )
    return list(dict.fromkeys(map(int, parts)))


def _as_json(run: Run) -> dict[str, Any]:
    return {
        "concurrency": run.concurrency,
        "batch_size": run.batch_size,
        "requests": len(run.latencies),
        "failed": run.failed,
        "seconds": run.seconds,
        "texts_cut_at_tokens": run.cut_at,
        "requests_per_second": run.requests_per_second,
        "texts_per_second": run.texts_per_second,
        "latency_seconds": {
            "mean": run.mean,
            **{f"p{share}": run.percentile(share) for share in (50, 90, 99)},
        },
    }


def _show(task: TaskName, runs: Sequence[Run]) -> None:
    from rich.table import Table

    best = max(run.texts_per_second for run in runs) or 1.0
    what = "texts" if task is TaskName.embed else "documents"
    failed = any(run.failed for run in runs)
    table = Table(box=None, pad_edge=False)
    for heading in (f"{what}/request", "in flight", f"{what}/s", "requests/s", "mean ms", "p50", "p90", "p99"):
        table.add_column(heading, justify="right", overflow="fold")
    if failed:
        table.add_column("failed", justify="right", style="red")
    table.add_column("")
    for run in runs:
        times = [f"{1000 * seconds:.1f}" for seconds in (run.mean, *map(run.percentile, (50, 90, 99)))]
        table.add_row(
            str(run.batch_size),
            str(run.concurrency),
            f"{run.texts_per_second:.1f}",
            f"{run.requests_per_second:.2f}",
            *times,
            *([str(run.failed)] if failed else []),
            "█" * round(_BAR * run.texts_per_second / best),
        )
    output.results().print(table)


def _drawer() -> Any:
    """The function that draws; before anything is measured, since what it needs may be missing."""
    try:
        import matplotlib
    except ImportError as exc:
        raise ConfigurationError('--plot needs matplotlib: pip install "ragpair[plot]"') from exc
    matplotlib.use("agg")
    return _draw


def _draw(path: Path, task: TaskName, runs: Sequence[Run]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    speed, delay = figure.subplots(1, 2)
    for size, of_size in _by_batch_size(runs):
        in_flight = [run.concurrency for run in of_size]
        speed.plot(in_flight, [run.texts_per_second for run in of_size], marker="o", label=f"{size} a request")
        (line,) = delay.plot(
            in_flight, [1000 * run.percentile(50) for run in of_size], marker="o", label=f"{size}, p50"
        )
        p99 = [1000 * run.percentile(99) for run in of_size]
        delay.plot(in_flight, p99, linestyle="--", color=line.get_color(), label=f"{size}, p99")
    what = "texts" if task is TaskName.embed else "documents"
    speed.set(xlabel="requests in flight", ylabel=f"{what} a second", ylim=(0, None))
    delay.set(xlabel="requests in flight", ylabel="milliseconds a request", ylim=(0, None))
    for axes in (speed, delay):
        axes.grid(alpha=0.3)
        axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path} could not be drawn: {exc}") from exc


def _by_batch_size(runs: Sequence[Run]) -> Iterator[tuple[int, list[Run]]]:
    for size, of_size in itertools.groupby(runs, key=lambda run: run.batch_size):
        yield size, sorted(of_size, key=lambda run: run.concurrency)
