"""The `ragpair` command: one module a command, which reads its options, calls the library, and shows what came.

Results go to standard output, all that is said meanwhile to standard error. What ragpair raises on purpose is shown as
a message, not as a traceback, and ends the command with a code that scripts can tell apart (`output.EXIT_CODES`).
"""

from __future__ import annotations

try:
    import rich  # noqa: F401
    import typer
except ModuleNotFoundError as exc:  # the command should say one line, not show the tracebacks of its imports
    raise SystemExit(f'The ragpair command needs typer and rich ({exc}): pip install "ragpair[cli]"') from None

from ragpair.cli import bench, demo, doctor, embed, launch, models, output, rerank

app = typer.Typer(
    help="Self-hosted embedding models and rerankers: right vectors, right scores.",
    epilog=output.EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,  # locals may hold an API key
)


@app.callback()
def root() -> None:
    """Self-hosted embedding models and rerankers: right vectors, right scores."""


for command in (
    doctor.doctor,
    launch.launch,
    bench.bench,
    embed.embed,
    rerank.rerank,
    models.models,
    demo.demo,
):
    app.command(epilog=output.EXIT_CODES)(command)


def main() -> None:
    """Run the command."""
    with output.messages():
        app()
