"""System One: models that decide rather than write, over `/v1/systemone`.

The route is the same on llama.cpp, Ollama (0.35 and newer), SGLang and vLLM. One yes-or-no question ("noul") is asked
about each document, in a request of its own: some of these models print all questions of a request into one prompt, so
that documents would influence each other. The answer is the probability of yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragpair.dialects.base import Scale, ScorePlan, ScoreWish, Served, field, malformed, to_scale
from ragpair.wire import Call, Flow, Reply, send

ROUTE = "systemone"
_LEAST_MASS = 0.5
_QUESTION = "Does the document answer the query?"
_CRITERIA = {"true": "The document answers the query.", "false": "The document does not answer the query."}


def plan(wish: ScoreWish) -> ScorePlan:
    """One question a document; an instruction takes the question's place."""
    return ScorePlan(
        ROUTE,
        "probability",
        per_call=1,
        instruction=wish.instruction,
        state="one question a document over /v1/systemone",
    )


def try_plan(served: Served, wish: ScoreWish) -> Flow[ScorePlan | None]:
    """The plan, if the server answers the question for one pair; for engines that do not tell what a model can do.

    SGLang asks any language model, and tells how likely its answer was a yes or a no at all.
    """
    wanted = plan(wish)
    reply = yield from send(call(served, wanted, "What is the capital of France?", ["Paris."]))
    if not reply.ok:
        return None
    read(reply)
    mass = field(reply, "answers")["relevant"].get("x_label_mass")
    return wanted if not isinstance(mass, int | float) or mass > _LEAST_MASS else None


def call(served: Served, plan: ScorePlan, query: str, documents: Sequence[str]) -> Call:
    """The question about one document."""
    (document,) = documents
    question: dict[str, Any] = {"type": "noul", "instructions": plan.instruction or _QUESTION}
    if plan.instruction is None:
        question["criteria"] = _CRITERIA
    state = {"query": query, "document": document}
    return Call("/v1/systemone", {"model": served.model, "state": state, "questions": {"relevant": question}})


def read(reply: Reply) -> Scale:
    """The probability of yes."""
    answers = field(reply, "answers")
    if not isinstance(answers, dict) or not isinstance(answers.get("relevant"), dict):
        raise malformed(reply, "no answer to the question 'relevant'")
    return to_scale([answers["relevant"].get("noul")], reply)
