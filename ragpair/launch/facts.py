"""What is known about models beyond the catalogue: their size, their architecture, what each engine wants for them.

`facts.json` holds one object per family, whose models may differ in single facts, like the catalogue. A family's
`vllm`, `sglang` and `ollama` say what the general rules of that engine do not, and a model's own stands in their place;
`unsure` marks what nobody has seen run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from ragpair.catalog import Family, Match
from ragpair.launch.values import Engine

# Read a text as a whole and keep no KV cache of it.
ENCODERS = frozenset(
    {
        "bert",
        "deberta",
        "embeddinggemma",
        "ernie",
        "gte",
        "jina-bert",
        "jina-xlm-roberta",
        "modernbert",
        "mpnet",
        "nomic-bert",
        "roberta",
    }
    | {"xlm-roberta", "xlm-roberta-lora"}
)


@dataclass(frozen=True, slots=True)
class Body:
    """Dimensions of a transformer."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one engine wants for one model, beyond its general rules. Each `..._why` is the reason of its flag.

    Attributes:
        refused: Why it cannot be served there, and what to do instead; "" if it can.
        unsure: Why nobody knows that it works; "" if it is known to.
        since: First version that has the model.
        caution: What to mind.
        trust: Code of the repository must be allowed to run.
        trust_why: See above.
        template: Name of the chat template of ours that other clients need.
        runner: Whether vLLM must be told that the model pools; None if its architecture says so.
        convert: What vLLM should make of a model whose config does not tell.
        overrides: Entries of the model's config that vLLM is given anew.
        why: See above.
        pooler: vLLM's `--pooler-config`.
        pooler_why: See above.
        dtype: The number type, where the default is refused.
        dtype_why: See above.
        eager: vLLM cannot capture this model in CUDA graphs.
        max_tokens: The card's length must be set, as the config has another.
        matryoshka: Whether vLLM must be told that vectors may be cut.
        tokens: Tokens that the engine takes of the model, where they are fewer than the card's.
        upload: Name on Ollama under which somebody else has put the model.
    """

    refused: str = ""
    unsure: str = ""
    since: str = ""
    caution: str = ""
    trust: bool = False
    trust_why: str = ""
    template: str = ""
    runner: bool | None = None
    convert: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    pooler: Mapping[str, Any] = field(default_factory=dict)
    pooler_why: str = ""
    dtype: str = ""
    dtype_why: str = ""
    eager: bool = False
    max_tokens: bool = False
    matryoshka: bool = True
    tokens: int | None = None
    upload: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one model.

    Attributes:
        architecture: Kind of network, such as "xlm-roberta"; "" if unknown.
        parameters: How many, where known.
        body: Its dimensions, where known.
        rules: What each engine wants.
    """

    architecture: str = ""
    parameters: int | None = None
    body: Body | None = None
    rules: Mapping[str, Rule] = field(default_factory=dict)

    @property
    def encoder(self) -> bool:
        """Whether it keeps no KV cache."""
        return self.architecture in ENCODERS

    def rule(self, engine: Engine) -> Rule:
        """What `engine` wants."""
        return self.rules.get(engine, Rule())


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Of one engine.

    Attributes:
        title: Its name as it writes it.
        newest: Newest version that the facts were read in.
        oldest: Oldest version that ragpair speaks to.
        port: Default port.
        share: Part of a GPU that it takes by default.
        image: Name of its docker image, with {version}.
    """

    title: str
    newest: str
    oldest: str
    port: int
    share: float
    image: str


def of(match: Match[Family] | None) -> Facts:
    """Facts of the model that the catalogue found; none if it found none."""
    if match is None:
        return Facts()
    file = _load()
    family = file["families"].get(match.family.id, {})
    own = family.get("models", {}).get(match.repo, {})
    body = own.get("body")
    return Facts(
        architecture=own.get("architecture", family.get("architecture", "")),
        parameters=own.get("parameters"),
        body=Body(**file["bodies"][body]) if body else None,
        rules={
            engine: Rule(**(own.get(engine) if engine in own else family.get(engine, {}))) for engine in file["engines"]
        },
    )


def engine(name: Engine) -> EngineFacts:
    """Facts of an engine."""
    return EngineFacts(**_load()["engines"][name])


@cache
def _load() -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(Path(__file__).with_name("facts.json").read_bytes())
    return loaded
