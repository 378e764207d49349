"""Runs the chain over all questions and shows what came out, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from ragpair.demo.chains import Asked, Framework, Setup, build
from ragpair.demo.helpdesk import Entry, Language, Question, hit_at_1, load, ndcg_at_10

NAMES = {"en": "English", "zh": "Chinese"}


Numbers = dict[str, dict[str, float]]


def run(console: Console, language: Language, framework: Framework, setup: Setup, examples: int) -> Numbers:
    """Index, ask every question that the FAQ answers, print examples and the two numbers, and return these."""
    entries, questions = load(language)
    answered = [question for question in questions if question.answer is not None]
    console.rule(f"{NAMES[language]}: {len(entries)} FAQ entries, {len(answered)} customers' questions")
    chain = build(framework, setup, entries)
    console.print(f"recall: {_model(setup.embed)}   rerank: {_model(setup.rerank)}   chain: {framework}, Qdrant")
    asked = [
        chain(question.text) for question in track(answered, description="asking", console=console, transient=True)
    ]
    console.print(_examples(entries, answered[:examples], asked[:examples], reranks=setup.rerank is not None))
    numbers = _numbers(answered, asked, reranks=setup.rerank is not None)
    table = Table("", *next(iter(numbers.values())))
    for name, row in numbers.items():
        table.add_row(name, *(f"{number:.3f}" for number in row.values()))
    console.print(table)
    return numbers


def _model(arguments: dict[str, object] | None) -> str:
    if arguments is None:
        return "none"
    return f"{arguments.get('model') or 'the default model'} at {arguments['base_url']}"


def _examples(entries: Sequence[Entry], questions: Sequence[Question], asked: Sequence[Asked], reranks: bool) -> Table:
    by_id = {entry.id: entry for entry in entries}
    table = Table(show_lines=True, expand=True)
    for heading in ("the customer asks", "recalled first", *(["first after reranking"] if reranks else []), "answer"):
        table.add_column(heading, overflow="fold")  # Chinese has no blanks to break at
    for question, found in zip(questions, asked, strict=True):
        firsts = [found.recalled[0], *([found.ranked[0]] if reranks else [])]
        cells = [
            f"[{'green' if first == question.answer else 'red'}]{escape(by_id[first].question)}[/]"
            + (f"\n[dim]score {found.score:.3f}[/]" if column and found.score is not None else "")
            for column, first in enumerate(firsts)
        ]
        table.add_row(escape(question.text), *cells, escape(by_id[found.ranked[0]].answer))
    return table


def _numbers(questions: Sequence[Question], asked: Sequence[Asked], reranks: bool) -> Numbers:
    wanted = [str(question.answer) for question in questions]
    lists = {"recall": [found.recalled for found in asked]}
    if reranks:
        lists["after reranking"] = [found.ranked for found in asked]
    return {
        name: {"hit@1": hit_at_1(rankings, wanted), "NDCG@10": ndcg_at_10(rankings, wanted)}
        for name, rankings in lists.items()
    }
