"""`ragpair rerank`: queries and documents to rankings."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from ragpair.cli import output
from ragpair.cli.embed import OnErrorName
from ragpair.cli.options import EngineName, EngineOption, Family, Json, Model, RerankApiKey, Timeout, family_of
from ragpair.cli.resume import process
from ragpair.cli.rows import STDIO, Row, count_lines, of_row, read_texts, refuse_names
from ragpair.cli.rowwise import rowwise
from ragpair.errors import ConfigurationError, InvalidInput, RagpairError

if TYPE_CHECKING:
    from ragpair import Ranked, Reranker
    from ragpair.scores import ScoreKind


class ScoresName(StrEnum):
    """Which scores."""

    probability = "probability"
    raw = "raw"


class OnTooLongName(StrEnum):
    """What becomes of a document that does not fit beside the query."""

    error = "error"
    truncate = "truncate"
    windows = "windows"


def rerank(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help='JSONL with "query" and "documents"; with --query, documents, one a line or JSONL; '
            "'-' reads standard input.",
        ),
    ] = STDIO,
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="A .jsonl file; '-' prints JSONL.")
    ] = STDIO,
    query: Annotated[str | None, typer.Option(help="One query for all documents of the input.")] = None,
    base_url: Annotated[
        str,
        typer.Option(help="Address of the server; 'local' is the embedded engine.", envvar="RAGPAIR_RERANK_BASE_URL"),
    ] = "local",
    top_n: Annotated[int | None, typer.Option(min=1, help="How many documents of each query; by default all.")] = None,
    scores: Annotated[
        ScoresName, typer.Option(help="The authors' probability, or what the server returns.")
    ] = ScoresName.probability,
    instruction: Annotated[
        str | None, typer.Option(help="What makes a document relevant, for models that take an instruction.")
    ] = None,
    field: Annotated[str, typer.Option(help="With --query: where the document is in a line of JSONL.")] = "text",
    too_long: Annotated[
        OnTooLongName,
        typer.Option(help="A document over the limit is an error, or its beginning or best passage counts."),
    ] = OnTooLongName.error,
    on_error: Annotated[
        OnErrorName, typer.Option(help="A row that fails ends the run, or is left out and noted in OUT.errors.jsonl.")
    ] = OnErrorName.stop,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents in a request.")] = 32,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    model: Model = None,
    family: Family = "auto",
    engine: EngineOption = EngineName.auto,
    api_key: RerankApiKey = None,
    timeout: Timeout = 120,
    json: Json = False,
) -> None:
    """Rank documents by their relevance to a query, as the model's authors define it.

    Each row comes out with "ranking", best first, of the documents' indexes and scores, and with "score_kind". A run
    that breaks is gone on with by the same command, without repeating work. --json prints a summary.

    For example:

      ragpair rerank pairs.jsonl -o ranked.jsonl --base-url http://localhost:8001

      ragpair rerank documents.txt --query "where is my parcel?" --top-n 3 --base-url http://localhost:8001
    """
    from ragpair import Reranker

    if out != STDIO and out.suffix != ".jsonl":
        raise ConfigurationError(f"{out}: the output is a .jsonl file, or '-' for standard output.")
    with Reranker(
        base_url,
        model,
        engine=engine.value,
        family=family_of(family),
        instruction=instruction,
        scores=scores.value,
        too_long=too_long.value,
        batch_size=batch_size,
        max_concurrency=concurrency,
        timeout=timeout,
        api_key=api_key,
    ) as reranker:
        if query is not None:
            _one(reranker, query, [text for _, text in read_texts(source, field)], out, top_n)
            return
        found = reranker.describe()
        skip = on_error is OnErrorName.skip
        with output.progress() as bars:
            bar = bars.add_task("reranking", total=count_lines(source))
            summary = process(
                source,
                out,
                settings={
                    "command": "rerank",
                    "model": found["model"],
                    "route": found["route"],
                    "instruction": instruction,
                    "scores": scores.value,
                    "too_long": too_long.value,
                    "top_n": top_n,
                },
                text="query",
                work=lambda rows: rowwise(
                    rows,
                    _pair,
                    lambda pairs: reranker._rank_iter(pairs, top_n),
                    lambda row, ranking: _line(row, ranking, found["score_kind"]),
                    skip=skip,
                ),
                advance=lambda count: bars.advance(bar, count),
            )
    output.summarise(summary, as_json=json)


def _one(reranker: Reranker, query: str, documents: Sequence[str], out: Path, top_n: int | None) -> None:
    if out != STDIO:
        raise ConfigurationError("With --query there is one ranking, which is printed: leave -o out, or redirect.")
    if not documents:
        raise InvalidInput("The input holds no documents.")
    ranking = reranker.rank(query, documents, top_n=top_n)
    output.write_json({"query": query, **_shown(ranking, ranking[0].score_kind)})


def _pair(row: Row) -> tuple[str, list[str]]:
    """Query and documents of a row."""
    refuse_names(row, "index", "ranking", "score_kind")
    query, documents = row.fields.get("query"), row.fields.get("documents")
    if not isinstance(query, str):
        raise InvalidInput(
            f"line {row.line} holds no text in 'query'. Documents of one query, one a line, want --query."
        )
    if not isinstance(documents, list):
        raise InvalidInput(f"line {row.line} holds no list in 'documents'.")
    return query, documents


def _line(row: Row, ranking: list[Ranked] | RagpairError, kind: ScoreKind) -> bytes:
    """What is written of a row."""
    if isinstance(ranking, RagpairError):
        raise of_row(row, ranking, str(ranking))
    kept = {name: value for name, value in row.fields.items() if name != "documents"}
    return orjson.dumps({**kept, "index": row.index, **_shown(ranking, kind)}, option=orjson.OPT_APPEND_NEWLINE)


def _shown(ranking: Sequence[Ranked], kind: ScoreKind) -> dict[str, Any]:
    return {"ranking": [{"index": one.index, "score": one.score} for one in ranking], "score_kind": kind}
