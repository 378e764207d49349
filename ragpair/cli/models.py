"""`ragpair models`: the catalogue, searched, with prompts to the last blank and how each engine serves a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ragpair import catalog
from ragpair.catalog import EmbeddingFamily, Family, Model, RerankerFamily
from ragpair.errors import ConfigurationError
from ragpair.launch import Launch, facts, plan, show
from ragpair.launch.values import Engine

_ENGINES: tuple[Engine, ...] = ("vllm", "sglang", "ollama")
_VISIBLE = str.maketrans({" ": "·", "\n": "↵", "\t": "→"})
_IN_DETAIL = 10


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Part of a family, a repository or an Ollama name, in small or capital letters."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the models that ragpair knows; with NAME, search them and show what is found in detail.

    Up to ten families are shown in detail, more as a list. In prompts, blanks are shown as ·, ends of lines as ↵ and
    tabs as →. Examples:

    ragpair models

    ragpair models Qwen3-Reranker-0.6B

    ragpair models bge --json
    """
    found = _search(name)
    if as_json:
        typer.echo(orjson.dumps({"families": [_as_dict(*one) for one in found]}, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if name is None or len(found) > _IN_DETAIL:
        _list(console, [family for family, _ in found])
        console.print(f"{len(found)} families. `ragpair models NAME` shows prompts, sources, and how to serve them.")
        return
    for family, chosen in found:
        _show(console, family, chosen)
    console.print("In prompts, · is a blank, ↵ the end of a line, → a tab.")


def _search(name: str | None) -> list[tuple[Family, tuple[Model, ...]]]:
    """Families that have the name in them, each with the models that have it, or all if only the family has.

    Raises:
        ConfigurationError: None has.
    """
    wanted, found = (name or "").casefold(), []
    for family in catalog.families().values():
        tags = {known.repo for tag in family.ollama if wanted in tag and (known := catalog.find(tag))}
        chosen = tuple(one for one in family.models if wanted in one.repo.casefold() or one.repo in tags)
        if chosen or wanted in family.id or any(wanted in tag for tag in family.ollama):
            found.append((family, chosen or family.models))
    if found:
        return found
    repos = {one.repo.casefold(): one.repo for family in catalog.families().values() for one in family.models}
    bases = {repo.rpartition("/")[2]: whole for repo, whole in repos.items()}
    near = [(repos | bases)[one] for one in difflib.get_close_matches(wanted, [*repos, *bases], n=3)]
    hint = f" Near are: {', '.join(dict.fromkeys(near))}." if near else " `ragpair models` lists all."
    raise ConfigurationError(f"No family, repository or Ollama name has {name!r} in it.{hint}")


def _list(console: Console, families: list[Family]) -> None:
    """A table as wide as it must be: nothing is cut, in a pipe or on a terminal."""
    columns = (Column(name, overflow="fold") for name in ("family", "kind", "models", "facts from"))
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for family in families:
        repos = ", ".join(model.repo for model in family.models[:2]) + (", ..." if len(family.models) > 2 else "")
        table.add_row(family.id, family.kind, repos, family.evidence)
    wide = console if console.is_terminal else Console(highlight=False, markup=False, width=500)
    wide.print(table, soft_wrap=False)


def _show(console: Console, family: Family, chosen: tuple[Model, ...]) -> None:
    console.print(f"{family.id} ({family.kind})", style="bold")
    for label, value in _facts(family, chosen):
        console.print(Text.assemble("  ", (f"{label}: ", "bold"), value), soft_wrap=True)
    console.print()


def _facts(family: Family, chosen: tuple[Model, ...]) -> Iterator[tuple[str, str]]:
    for model in chosen:
        dims = f"{model.dims} numbers" if model.dims else ""
        tokens = f"{model.max_tokens:,} tokens" if model.max_tokens else ""
        yield "model", ", ".join(filter(None, (model.repo, dims, tokens)))
    if family.ollama:
        yield "on Ollama", ", ".join(family.ollama)
    shown = [_of(family, model) for model in chosen]
    for label in ("query", "document", "prompt"):
        for model, prompts in zip(chosen, (_prompts(one) for one in shown), strict=True):
            if label in prompts and (len(chosen) == 1 or len({_prompts(one).get(label) for one in shown}) > 1):
                yield f"{label} of {model.repo}" if len(chosen) > 1 else label, _visible(prompts[label])
            elif label in prompts and model is chosen[0]:
                yield label, _visible(prompts[label])
    if family.instruction:
        yield "default instruction", _visible(family.instruction)
    if isinstance(family, RerankerFamily):
        yield "score of its authors", family.score.native
    for engine in _ENGINES:
        launch, reason = _plan(chosen[0].repo, engine)
        yield facts.engine(engine).title, show.one_line(launch) if launch else f"no. {reason}"
    if family.note:
        yield "note", family.note
    yield "facts from", f"{family.evidence}: {'; '.join(family.sources)}"


def _of(family: Family, model: Model) -> Family:
    """The family with the facts of one model."""
    match = catalog.find(model.repo)
    return match.family if match else family


def _prompts(family: Family) -> dict[str, str | None]:
    if isinstance(family, EmbeddingFamily):
        return {"query": family.query, "document": family.document}
    if isinstance(family, RerankerFamily) and family.frame:
        return {"prompt": str(family.frame)}
    return {}


def _visible(prompt: str | None) -> str:
    return "it cannot be said in a template" if prompt is None else prompt.translate(_VISIBLE)


def _plan(repo: str, engine: Engine) -> tuple[Launch | None, str]:
    try:
        return plan(repo, engine), ""
    except ConfigurationError as exc:
        return None, str(exc)


def _as_dict(family: Family, chosen: tuple[Model, ...]) -> dict[str, Any]:
    rows = []
    for model in chosen:
        plans = {engine: _plan(model.repo, engine) for engine in _ENGINES}
        rows.append(
            {
                "repo": model.repo,
                "dims": model.dims,
                "max_tokens": model.max_tokens,
                "prompts": _prompts(_of(family, model)),
                "engines": {
                    engine: {"command": show.one_line(launch)} if launch else {"refused": reason}
                    for engine, (launch, reason) in plans.items()
                },
            }
        )
    return {
        "family": family.id,
        "kind": family.kind,
        "models": rows,
        "ollama": list(family.ollama),
        "default_instruction": family.instruction,
        "score": family.score.native if isinstance(family, RerankerFamily) else None,
        "note": family.note or None,
        "evidence": family.evidence,
        "sources": list(family.sources),
    }
