"""`ragpair models`: what the catalogue knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ragpair import catalog
from ragpair.errors import ConfigurationError


def models(
    name: Annotated[str | None, typer.Argument(help="A family, a repository, or a part of either.")] = None,
) -> None:
    """List the model families that are known; with a name, show their prompts to the last blank."""
    wanted = (name or "").casefold()
    found = [
        family
        for family in catalog.families().values()
        if any(wanted in text.casefold() for text in (family.id, *(model.repo for model in family.models)))
    ]
    if not found:
        raise ConfigurationError(f"No model family or repository contains {name!r}.")
    console = Console(highlight=False)
    if name is None:
        table = Table("family", "kind", "models", "prompts read in")
        for family in found:
            repos = ", ".join(model.repo for model in family.models[:2]) + (", ..." if len(family.models) > 2 else "")
            table.add_row(family.id, family.kind, repos, family.evidence)
        console.print(table)
        return
    for family in found:
        console.rule(f"{family.id} ({family.kind})", align="left")
        for label, value in _facts(family):
            console.print(f"[bold]{label}[/]: {escape(value)}", soft_wrap=True)


def _facts(family: catalog.Family) -> Iterator[tuple[str, str]]:
    yield "models", ", ".join(model.repo for model in family.models)
    if isinstance(family, catalog.EmbeddingFamily):
        yield "query", repr(family.query)
        yield "document", repr(family.document)
    if isinstance(family, catalog.RerankerFamily):
        yield "prompt", repr(str(family.frame)) if family.frame else f"none of ours ({family.framing})"
        yield "score", family.score.native
    if family.instruction:
        yield "default instruction", repr(family.instruction)
    if family.note:
        yield "note", family.note
    yield "read in", f"{family.evidence}: {'; '.join(family.sources)}"
