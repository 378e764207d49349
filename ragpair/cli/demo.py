"""`ragpair demo`: a customer-service chain, on the embedded models or on servers."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ragpair.cli import output
from ragpair.cli.options import Json

if TYPE_CHECKING:
    from ragpair.demo.chains import Setup
    from ragpair.demo.helpdesk import Language


class FrameworkName(StrEnum):
    """Whose chain runs."""

    langchain = "langchain"
    llamaindex = "llamaindex"


class LanguageName(StrEnum):
    """Whose questions are asked."""

    en = "en"
    zh = "zh"
    both = "both"


def demo(
    framework: Annotated[FrameworkName, typer.Option(help="Whose chain runs.")] = FrameworkName.langchain,
    language: Annotated[LanguageName, typer.Option(help="Whose questions are asked.")] = LanguageName.both,
    base_url: Annotated[
        str, typer.Option(help="Server of the embedding model; 'local' is the embedded one.", envvar="RAGPAIR_BASE_URL")
    ] = "local",
    model: Annotated[str | None, typer.Option(help="Name of the embedding model on the server.")] = None,
    rerank_base_url: Annotated[
        str | None,
        typer.Option(help="Server of the reranker; by default the embedded one.", envvar="RAGPAIR_RERANK_BASE_URL"),
    ] = None,
    rerank_model: Annotated[str | None, typer.Option(help="Name of the reranker on the server.")] = None,
    qdrant_url: Annotated[str | None, typer.Option(help="Address of a Qdrant server; by default in memory.")] = None,
    fetch_k: Annotated[int, typer.Option(min=1, help="How many entries are recalled.")] = 10,
    examples: Annotated[int, typer.Option(min=0, help="How many questions are shown.")] = 4,
    json: Json = False,
) -> None:
    """Run a customer-service chain: recall from Qdrant, rerank, answer.

    Without options everything runs in this process on small embedded models: no server, no key, no download but
    packages. With --base-url and --rerank-base-url it runs on your own servers.

    For example:

      ragpair demo --language en --framework llamaindex

      ragpair demo --base-url http://localhost:8000 --rerank-base-url http://localhost:8001
    """
    from ragpair.demo import show

    console = output.asides() if json else Console()
    languages: dict[LanguageName, list[Language]] = {
        LanguageName.en: ["en"],
        LanguageName.zh: ["zh"],
        LanguageName.both: ["en", "zh"],
    }
    numbers = {}
    for one in languages[language]:
        setup = _setup(one, base_url, model, rerank_base_url, rerank_model, qdrant_url, fetch_k)
        numbers[one] = show.run(console, one, framework.value, setup, examples)
    if base_url == "local":
        console.print(
            "The embedded models are for trying things out: small, English with a harmless reranker, Chinese without "
            "one. Point --base-url and --rerank-base-url at vLLM, SGLang or Ollama to see real ones.",
            style="dim",
        )
    if json:
        output.write_json(numbers)


def _setup(
    language: Language,
    base_url: str,
    model: str | None,
    rerank_base_url: str | None,
    rerank_model: str | None,
    qdrant_url: str | None,
    fetch_k: int,
) -> Setup:
    """The embedded models know one language each, and only the English one has token vectors to rerank with."""
    from ragpair.demo.chains import Setup

    if base_url == "local" and model is None and language == "zh":
        model = "multilingual-e5-small"
    rerank: dict[str, Any] | None = None
    if rerank_base_url is not None and rerank_base_url != "local":
        rerank = {"base_url": rerank_base_url, "model": rerank_model}
    elif language == "en":
        rerank = {"base_url": "local", "model": rerank_model, "scores": "raw"}
    return Setup({"base_url": base_url, "model": model}, rerank, qdrant_url, fetch_k)
