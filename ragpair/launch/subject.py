"""What is to be launched: the model as the catalogue knows it, and what the user has for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ragpair import catalog
from ragpair.catalog import EmbeddingFamily, Family, Match, RerankerFamily
from ragpair.errors import ConfigurationError
from ragpair.launch import facts
from ragpair.launch.facts import EngineFacts, Facts, Rule
from ragpair.launch.values import Engine, Task

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model for a task on an engine.

    Attributes:
        name: What the engine is given: a repository, a path, or an Ollama name.
        match: What the catalogue knows of it.
        facts: What is known beyond that.
        task: What for.
        engine: On which engine.
        version: Its version.
        gpus: How many GPUs.
        gpu_memory: GB that each of them has, where known.
        max_tokens: Longest text to be served; None if nobody knows how long texts may be.
        because: Why just that length; "" if it is the card's.
        port: The port, if the user named one.
        template_dir: Where the chat template for other clients is, if the user wants one.
    """

    name: str
    match: Match[Family] | None
    facts: Facts
    task: Task
    engine: Engine
    version: Version
    gpus: int = 1
    gpu_memory: float | None = None
    max_tokens: int | None = None
    because: str = ""
    port: int | None = None
    template_dir: str | None = None

    @property
    def rule(self) -> Rule:
        """What the engine wants for this model."""
        return self.facts.rule(self.engine)

    @property
    def engine_facts(self) -> EngineFacts:
        """Of the engine."""
        return facts.engine(self.engine)

    @property
    def embedder(self) -> EmbeddingFamily | None:
        """The family, if it embeds."""
        family = self.match.family if self.match else None
        return family if isinstance(family, EmbeddingFamily) and family.kind == "embedding" else None

    @property
    def reranker(self) -> RerankerFamily | None:
        """The family, if it reranks."""
        family = self.match.family if self.match else None
        return family if isinstance(family, RerankerFamily) else None

    @property
    def answers(self) -> bool:
        """Whether the model reranks by one of two words, so that any engine that generates can be asked."""
        family = self.reranker
        return bool(family and family.frame and family.true_token and family.false_token)

    @property
    def widths(self) -> dict[str, Any]:
        """Entries of the config that let clients ask for fewer dimensions.

        Only what the card promises and a plain cut gives; what nobody has read is left out.
        """
        rule = self.embedder.matryoshka if self.embedder else None
        if rule is None or rule.learned or rule.layer_norm or rule.evidence == "memory" or not self.rule.matryoshka:
            return {}
        return {"matryoshka_dimensions": sorted(rule.dims)} if rule.dims else {"is_matryoshka": True}


def find(model: str, engine: Engine) -> tuple[str, Match[Family] | None]:
    """What to serve, and what the catalogue knows of it. A bare name becomes its repository, a path stays.

    Raises:
        ConfigurationError: A bare name that nobody knows, or that is several models.
    """
    if not model or model.startswith("-") or any(char.isspace() or not char.isprintable() for char in model):
        raise ConfigurationError(f"{model!r} is no model name: pass a repository such as 'BAAI/bge-m3', or a folder.")
    match = catalog.find(model)
    repo = match.repo if match and match.repo else ""
    if repo and model.casefold() in (repo.casefold(), repo.rpartition("/")[2].casefold()):
        return repo, match
    if engine == "ollama" or "/" in model or "\\" in model:
        return model, match
    if match is None:
        match = Match(catalog.family(model))  # or an error that says which names are near
    if match.repo is None:
        names = ", ".join(one.repo for one in match.family.models)
        raise ConfigurationError(f"{model!r} is a family of models. Pass one of: {names}.")
    return match.repo, match


def is_folder(name: str) -> bool:
    """Whether a model's name is a path on this machine, as it is not for a repository."""
    return name.startswith(("/", ".", "~")) or "\\" in name


def task_of(task: Task | None, match: Match[Family] | None, model: str) -> Task:
    """The task that the user named, or that the catalogue tells.

    Raises:
        ConfigurationError: Nobody says what the model is for, or the two disagree.
    """
    if match is None:
        if task is None:
            raise ConfigurationError(f"{model!r} is not in the catalogue: say what it is for, --task embed or rerank.")
        return task
    known: Task = "embed" if match.family.kind == "embedding" else "rerank"
    if task not in (None, known):
        kind = "an embedding model" if known == "embed" else "a reranker"
        raise ConfigurationError(f"{model!r} is {kind} ({match.family.id}): leave --task out, or pass --task {known}.")
    return known


def parse_version(version: str, engine: Engine) -> Version:
    """(0, 11, 2) of "0.11.2" or "v0.11.2rc1".

    Raises:
        ConfigurationError: It is no version, or one that ragpair does not speak to.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    if not found:
        raise ConfigurationError(f"{version!r} is no version of {engine}: write it like {facts.engine(engine).newest}.")
    parsed = tuple(int(number or 0) for number in found.groups())
    oldest = facts.engine(engine).oldest
    if parsed < tuple(map(int, oldest.split("."))):
        raise ConfigurationError(f"ragpair speaks to {engine} {oldest} and newer, not to {version}.")
    return parsed


def parse_parameters(text: str) -> int:
    """8000000000 of "8B", 568000000 of "568M".

    Raises:
        ConfigurationError: It is no such number.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MB])", text.strip(), re.IGNORECASE)
    count = float(found[1]) * (1e9 if found[2] in "bB" else 1e6) if found else 0
    if not 1e5 < count < 1e13:
        raise ConfigurationError(f"{text!r} is no number of parameters: write it like 8B or 568M.")
    return round(count)
