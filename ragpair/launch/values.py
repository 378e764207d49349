"""What a plan is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Engine = Literal["vllm", "sglang", "ollama"]
Task = Literal["embed", "rerank"]

GIB = 1024**3
CARDS = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180)  # GB of GPUs as they are sold; their makers count in GiB


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of a command, or one environment variable, and why it is there."""

    name: str
    value: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, then its flags."""

    words: tuple[str, ...]
    flags: tuple[Flag, ...] = ()
    environment: tuple[Flag, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """What a process is started with."""
        return (*self.words, *(word for flag in self.flags for word in (flag.name, flag.value) if word is not None))


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the memory estimate.

    Attributes:
        name: What takes the memory.
        gib: How much of it, on each GPU.
        how: How that was worked out.
    """

    name: str
    gib: float
    how: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What each GPU must hold: an estimate.

    Attributes:
        terms: The sum.
        share: The part of a GPU that the engine takes for itself by default.
        unknown: What the sum lacks, because the facts are missing; "" if nothing.
    """

    terms: tuple[Term, ...]
    share: float
    unknown: str = ""

    @property
    def gib(self) -> float:
        """The sum."""
        return sum(term.gib for term in self.terms)

    @property
    def needed(self) -> float:
        """GiB that a GPU must have, as the engine leaves some of it alone."""
        return self.gib / self.share

    @property
    def card(self) -> int | None:
        """GB of the smallest GPU on the market that has it, or None if none has."""
        return next((card for card in CARDS if card >= self.needed), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A server that does `task` with `model`, on one version of one engine.

    Attributes:
        engine: The engine.
        version: Its version.
        model: What is served.
        task: What for.
        server: The command that starts the server.
        then: What to run once it is up: Ollama loads its models so.
        modelfile: Text of Ollama's Modelfile, which a command in `then` reads; "" if none is needed.
        gguf: File that must lie beside the Modelfile; "" if none.
        template: Name of the chat template that the server reads, "" if none.
        base_url: Where ragpair finds it.
        served: The `model=` that ragpair needs there; None where the server says it itself.
        gpus: GPUs that the server uses.
        memory: What it takes on each GPU; None if the model's size is not known.
        cautions: What to mind.
    """

    engine: Engine
    version: str
    model: str
    task: Task
    server: Command
    then: tuple[Command, ...] = ()
    modelfile: str = ""
    gguf: str = ""
    template: str = ""
    base_url: str
    served: str | None = None
    gpus: int = 1
    memory: Memory | None = None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What the rules of one engine say."""

    server: Command
    then: tuple[Command, ...] = ()
    modelfile: str = ""
    gguf: str = ""
    template: str = ""
    served: str | None = None
    cautions: tuple[str, ...] = ()
