"""`ragpair embed`: a file of texts to a file of vectors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from ragpair.cli import output
from ragpair.cli.options import ApiKey, EngineName, EngineOption, Family, Json, Model, Timeout, family_of
from ragpair.cli.resume import process
from ragpair.cli.rows import STDIO, Row, count_lines, of_row, refuse_names
from ragpair.cli.rowwise import rowwise
from ragpair.errors import ConfigurationError, RagpairError

if TYPE_CHECKING:
    from ragpair.dialects.base import Vectors

_ITS_INDEX = re.compile(r"\btext \d+\b|^(document|query) \d+\b")


class SideName(StrEnum):
    """What the texts are: models have another prompt for each."""

    query = "query"
    document = "document"


class OnTooLongName(StrEnum):
    """What becomes of a text over the model's limit."""

    error = "error"
    truncate = "truncate"


class OnErrorName(StrEnum):
    """What becomes of the run when a row fails."""

    stop = "stop"
    skip = "skip"


def embed(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="JSONL, or one text a line; '-' reads standard input.")
    ] = STDIO,
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="A .jsonl or .npy file; '-' prints JSONL.")
    ] = STDIO,
    base_url: Annotated[
        str, typer.Option(help="Address of the server; 'local' is the embedded engine.", envvar="RAGPAIR_BASE_URL")
    ] = "local",
    side: Annotated[
        SideName,
        typer.Option(help="Whether the texts are searched in, or searched for: models prompt them differently."),
    ] = SideName.document,
    field: Annotated[str, typer.Option(help="Where the text is in a line of JSONL.")] = "text",
    instruction: Annotated[
        str | None, typer.Option(help="What queries look for, for models that take an instruction.")
    ] = None,
    dimensions: Annotated[int | None, typer.Option(help="Width of the vectors, for models that may be cut.")] = None,
    too_long: Annotated[
        OnTooLongName, typer.Option(help="A text over the model's limit is an error, or its beginning is taken.")
    ] = OnTooLongName.error,
    on_error: Annotated[
        OnErrorName, typer.Option(help="A row that fails ends the run, or is left out and noted in OUT.errors.jsonl.")
    ] = OnErrorName.stop,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Texts in a request; by default what suits it.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    model: Model = None,
    family: Family = "auto",
    engine: EngineOption = EngineName.auto,
    api_key: ApiKey = None,
    timeout: Timeout = 120,
    json: Json = False,
) -> None:
    """Embed every text of a file, with the model's own prompts.

    JSONL comes out as it came in, with "index" and "embedding" in place of the text. A .npy file holds float32 rows in
    the order of the texts. A run that breaks is gone on with by the same command, without repeating work. --json prints
    a summary.

    For example:

      ragpair embed texts.txt -o vectors.npy --base-url http://localhost:8000

      ragpair embed articles.jsonl --field body -o articles.vectors.jsonl --too-long truncate

      echo "where is my parcel?" | ragpair embed --side query
    """
    from ragpair import Embedder

    skip = on_error is OnErrorName.skip
    if out != STDIO and out.suffix not in (".jsonl", ".npy"):
        raise ConfigurationError(f"{out}: the output is a .jsonl or a .npy file, or '-' for standard output.")
    if skip and out.suffix == ".npy":
        raise ConfigurationError(
            "--on-error skip goes with .jsonl: in a .npy file only the position tells which text a vector is of."
        )
    with Embedder(
        base_url,
        model,
        engine=engine.value,
        family=family_of(family),
        instruction=instruction,
        dimensions=dimensions,
        too_long=too_long.value,
        batch_size=batch_size,
        max_concurrency=concurrency,
        timeout=timeout,
        api_key=api_key,
    ) as embedder:
        found = embedder.describe()
        texts = _Texts(field, as_floats=out.suffix == ".npy")
        with output.progress() as bars:
            bar = bars.add_task("embedding", total=count_lines(source))
            summary = process(
                source,
                out,
                settings={
                    "command": "embed",
                    "model": found["model"],
                    "prompt": found[f"{side.value}_prompt"],
                    "dimensions": dimensions,
                    "too_long": too_long.value,
                    "field": field,
                },
                text=field,
                work=lambda rows: rowwise(
                    rows, texts.of, lambda given: embedder._embed_iter(given, side.value), texts.line, skip=skip
                ),
                advance=lambda count: bars.advance(bar, count),
            )
    output.summarise(summary, as_json=json)


@dataclass(frozen=True, slots=True)
class _Texts:
    """What becomes of a row: its text is embedded, and the vector takes the text's place.

    Attributes:
        field: Where the text stands.
        as_floats: Whether the vector alone is written, in bytes.
    """

    field: str
    as_floats: bool

    def of(self, row: Row) -> str:
        """What is embedded."""
        if not self.as_floats:
            refuse_names(row, "index", "embedding", but=self.field)
        return row.text(self.field)

    def line(self, row: Row, vector: Vectors | RagpairError) -> bytes:
        """What is written."""
        if isinstance(vector, RagpairError):
            raise _told(row, vector)
        if self.as_floats:
            return vector.tobytes()
        kept = {name: value for name, value in row.fields.items() if name != self.field}
        result = {**kept, "index": row.index, "embedding": vector}
        return orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _told(row: Row, error: RagpairError) -> RagpairError:
    """What is wrong with a text alone is told by its line, since indexes count from where this run began."""
    said, alone = _ITS_INDEX.subn("the text", str(error), count=1)
    return of_row(row, error, said) if alone else error
