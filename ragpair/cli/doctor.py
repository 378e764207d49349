"""`ragpair doctor`: what a server is, whether it is right, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ragpair.cli import output
from ragpair.cli.options import ApiKey, EngineName, EngineOption, Family, Json, Model, TaskName, Timeout, family_of

if TYPE_CHECKING:
    from ragpair.doctor import Checkup, Finding

_NAMES = {"vllm": "vLLM", "sglang": "SGLang", "ollama": "Ollama", "llamacpp": "llama.cpp", "local": "embedded"}
_STYLES = {"problem": "bold red", "warning": "yellow", "note": "cyan"}
_TEMPLATES = {"none": "none on the server", "card": "the server's, as the card wants it", "other": "the server's own"}


def doctor(
    urls: Annotated[
        list[str],
        typer.Argument(
            metavar="URL...", help="Addresses: an embedding model, a reranker, replicas of one, or 'local'."
        ),
    ],
    model: Model = None,
    expect: Annotated[
        TaskName | None, typer.Option(help="What the model must be able to do; by default that is found out.")
    ] = None,
    family: Family = "auto",
    engine: EngineOption = EngineName.auto,
    api_key: ApiKey = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a server that is still starting.")] = 0,
    timeout: Timeout = 60,
    json: Json = False,
) -> None:
    """Check that a server embeds or reranks as the model's authors meant it, and say what mends it if not.

    Looks at engine, version, model, limits, prompts, templates, scores and keys with some forty small requests, and
    tries the model on a dozen English and Chinese questions. Changes nothing on the server.

    For example:

      ragpair doctor http://localhost:8000

      ragpair doctor http://localhost:8001 --expect rerank --wait 300

      ragpair doctor http://gpu1:8000 http://gpu2:8000 --json
    """
    from ragpair.doctor import Ask, agreement, diagnose, examine

    ask = Ask(model, expect.value if expect else None, family_of(family), engine.value, api_key, timeout, wait)
    checkups = [examine(url, ask) for url in urls]
    found = [diagnose(checkup) for checkup in checkups]
    between = agreement(checkups)
    problems = sum(finding.severity == "problem" for findings in (*found, between) for finding in findings)
    absent = any(checkup.absent for checkup in checkups)
    if json:
        servers = [_as_json(*pair) for pair in zip(checkups, found, strict=True)]
        replicas = [_finding_as_json(finding) for finding in between]
        verdict = "absent" if absent else "problems" if problems else "ok"
        output.write_json({"verdict": verdict, "servers": servers, "replicas": replicas})
    else:
        console = output.results()
        for checkup, findings in zip(checkups, found, strict=True):
            _show(console, checkup, findings)
        _show_findings(console, between)
        if len(urls) > 1 and not between:
            _line(console, "", "Servers that do the same agree with each other.")
        _verdict(console, problems, sum(finding.severity == "warning" for one in (*found, between) for finding in one))
    if absent or problems:
        raise typer.Exit(output.ABSENT if absent else output.FOUND)


def _show(console: Console, checkup: Checkup, findings: Sequence[Finding]) -> None:
    console.print(checkup.url, style="bold", markup=False, soft_wrap=True)
    for label, value in _facts(checkup):
        _line(console, label, value)
    _show_findings(console, findings)
    console.print()


def _line(console: Console, label: str, value: str) -> None:
    console.print(f"  {label:<13}", end="", style="dim")
    console.print(value, markup=False, soft_wrap=True)


def _facts(checkup: Checkup) -> Iterator[tuple[str, str]]:
    if checkup.engine:
        told = checkup.version or checkup.engine == "local" or not checkup.model
        version = checkup.version if told else "(version not told)"
        yield "engine", f"{_NAMES[checkup.engine]} {version}".rstrip()
    if checkup.model:
        yield "model", checkup.model + (f" = {checkup.repo}" if checkup.repo not in (None, checkup.model) else "")
        yield "family", checkup.family or "not in the catalogue"
    if checkup.task:
        yield "task", checkup.task
    if checkup.limit:
        yield "input limit", f"{checkup.limit} tokens"
    if checkup.embedding:
        yield from _embedding_facts(checkup)
    if checkup.reranking:
        yield "scores", f"{checkup.reranking.score_kind}, by {checkup.reranking.route}"
        if checkup.reranking.template:
            yield "template", _TEMPLATES[checkup.reranking.template]
    if checkup.takes_instruction is not None:
        yield "instruction", repr(checkup.instruction) if checkup.takes_instruction else "takes none"
    if checkup.access:
        yield "key", _access(checkup)
    if checkup.latency is not None:
        yield "one query", f"{checkup.latency * 1000:.1f} ms"
    if checkup.separates:
        told = ", ".join(f"{one.right} of {one.of} in {name!r}" for name, one in checkup.separates.items())
        yield "right first", told


def _embedding_facts(checkup: Checkup) -> Iterator[tuple[str, str]]:
    facts = checkup.embedding
    assert facts is not None
    yield "vectors", f"{facts.width} numbers, {'normalised' if _normalised(checkup) else 'not normalised'}"
    told = facts.pooling or "not told by the server"
    yield "pooling", told + (f"; the authors': {checkup.model_pooling}" if checkup.model_pooling else "")
    yield "query", repr(facts.query_prompt)
    yield "document", repr(facts.document_prompt)


def _normalised(checkup: Checkup) -> bool:
    import numpy as np

    assert checkup.embedding is not None
    return bool(np.abs(np.linalg.norm(checkup.embedding.vectors, axis=1) - 1).max() < 1e-3)


def _access(checkup: Checkup) -> str:
    guarded = [path for path, access in checkup.access.items() if access == "key"]
    opened = [path for path, access in checkup.access.items() if access == "open"]
    if not guarded:
        return "none wanted"
    return f"wanted by {', '.join(guarded)}" + (f"; not by {', '.join(opened)}" if opened else "")


def _show_findings(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        console.print()
        console.print(f"  {finding.severity.upper()}: ", end="", style=_STYLES[finding.severity])
        console.print(output.as_options(finding.what), markup=False, soft_wrap=True)
        if finding.why:
            console.print(f"    {finding.why}", markup=False, soft_wrap=True)
        if finding.cure:
            console.print("    Mend it: ", end="", style="green")
            console.print(finding.cure, markup=False, soft_wrap=True)


def _verdict(console: Console, problems: int, warned: int) -> None:
    warnings = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
    if problems:
        console.print(f"{problems} problem{'s' if problems > 1 else ''}{warnings}.", style="bold red")
    else:
        console.print(f"OK{warnings}.", style="bold green")


def _as_json(checkup: Checkup, findings: Sequence[Finding]) -> dict[str, Any]:
    embedding, reranking = checkup.embedding, checkup.reranking
    return {
        "url": checkup.url,
        "absent": checkup.absent,
        "engine": checkup.engine,
        "version": checkup.version,
        "model": checkup.model,
        "task": checkup.task,
        "family": checkup.family,
        "repo": checkup.repo,
        "limit": checkup.limit,
        "takes_instruction": checkup.takes_instruction,
        "instruction": checkup.instruction,
        "access": dict(checkup.access),
        "latency_seconds": checkup.latency,
        "right_first": {name: [one.right, one.of] for name, one in checkup.separates.items()},
        "embedding": embedding
        and {
            "width": embedding.width,
            "normalised": _normalised(checkup),
            "pooling": embedding.pooling,
            "authors_pooling": checkup.model_pooling,
            "query_prompt": embedding.query_prompt,
            "document_prompt": embedding.document_prompt,
        },
        "reranking": reranking
        and {"score_kind": reranking.score_kind, "route": reranking.route, "template": reranking.template},
        "findings": [_finding_as_json(finding) for finding in findings],
    }


def _finding_as_json(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity,
        "what": output.as_options(finding.what),
        "why": finding.why,
        "cure": finding.cure,
    }
