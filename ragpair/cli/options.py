"""Options that several commands have, worded once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class EngineName(StrEnum):
    """Whose API a server speaks."""

    auto = "auto"
    vllm = "vllm"
    sglang = "sglang"
    ollama = "ollama"
    llamacpp = "llamacpp"


class TaskName(StrEnum):
    """What a model is for."""

    embed = "embed"
    rerank = "rerank"


Model = Annotated[str | None, typer.Option(help="Name of the model on the server; not needed if it serves one.")]
Family = Annotated[
    str,
    typer.Option(
        help="Whose prompts to use, if the model's name does not tell: an id of `ragpair models`; 'none' is no prompts."
    ),
]
EngineOption = Annotated[EngineName, typer.Option(help="The engine, if a gateway hides which it is.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=["RAGPAIR_API_KEY", "RAGPAIR_RERANK_API_KEY"],
        show_default=False,
        help="Key of the server. Better left in the environment, where no list of processes shows it. Never printed.",
    ),
]
RerankApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=["RAGPAIR_RERANK_API_KEY", "RAGPAIR_API_KEY"],
        show_default=False,
        help="Key of the server. Better left in the environment, where no list of processes shows it. Never printed.",
    ),
]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for one answer.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def family_of(name: str) -> str | None:
    """The library's argument: None is a model without prompts."""
    return None if name == "none" else name
