"""Decision models as rerankers: one yes-or-no question a document. Replies as llama.cpp's server gave them."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ragpair import Reranker
from ragpair.dialects import DIALECTS
from ragpair.dialects.base import ScoreWish, Served
from ragpair.flows import Report, ScoreJob, score
from ragpair.pace import Pace
from ragpair.wire import Call, Flow, Gather, Reply

# Recorded of xllamacpp 2026.10.11549 with a decision GGUF; only the probability varies here.
ANSWER: dict[str, Any] = {
    "answers": {"relevant": {"type": "noul", "noul": 0.508630213257288}},
    "usage": {"input_tokens": 85, "output_tokens": 0},
}
UNSUPPORTED = {"error": {"code": 501, "message": "This model is not a decision model", "type": "not_supported_error"}}


def play(flow: Flow[Any], server: Callable[[Call], Reply]) -> Any:
    """Runs a flow against a function."""
    answer: Any = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = [play(one, server) for one in step.flows] if isinstance(step, Gather) else server(step)


def reply(body: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(body).encode(), "http://server", "/v1/systemone")


@pytest.mark.parametrize("engine", ["ollama", "llamacpp"])
def test_one_question_is_asked_about_each_document(engine: str) -> None:
    dialect = DIALECTS[engine]
    served = Served(engine, "tev1:0.8b", kind="decide")
    plan = play(dialect.plan_scores(served, ScoreWish()), lambda call: pytest.fail("no probe is needed"))
    sent: list[Call] = []

    def server(call: Call) -> Reply:
        sent.append(call)
        body = json.loads(json.dumps(ANSWER))
        body["answers"]["relevant"]["noul"] = 0.9 if "parcel" in call.body["state"]["document"] else 0.2  # type: ignore[index]
        return reply(body)

    job = ScoreJob(
        dialect, served, Pace(32), "error", {}, "http://server", Report(), plan, "where is my order?", "probability"
    )
    scores = play(score(job, ["Bananas.", "Track your parcel."]), server)
    np.testing.assert_allclose(scores, [0.2, 0.9])
    assert [call.path for call in sent] == ["/v1/systemone"] * 2
    assert sent[1].body == {
        "model": "tev1:0.8b",
        "state": {"query": "where is my order?", "document": "Track your parcel."},
        "questions": {
            "relevant": {
                "type": "noul",
                "instructions": "Does the document answer the query?",
                "criteria": {
                    "true": "The document answers the query.",
                    "false": "The document does not answer the query.",
                },
            }
        },
    }


def test_an_instruction_is_the_question() -> None:
    served = Served("ollama", "tev1:0.8b", kind="decide")
    plan = play(DIALECTS["ollama"].plan_scores(served, ScoreWish(instruction="Is it a refund?")), lambda _: reply({}))
    call = DIALECTS["ollama"].score_call(served, plan, "q", ["d"])
    assert call.body is not None
    assert call.body["questions"] == {"relevant": {"type": "noul", "instructions": "Is it a refund?"}}


def test_engines_that_do_not_tell_are_tried() -> None:
    served = Served("sglang", "pplx-decider", kind="generate")
    plan = play(DIALECTS["sglang"].plan_scores(served, ScoreWish()), lambda _: reply(ANSWER))
    assert plan.route == "systemone"
    with pytest.raises(ValueError, match="not known as a reranker"):
        play(DIALECTS["sglang"].plan_scores(served, ScoreWish()), lambda _: reply(UNSUPPORTED, 501))


def test_a_reply_without_the_answer_is_an_error() -> None:
    served = Served("ollama", "tev1:0.8b", kind="decide")
    plan = play(DIALECTS["ollama"].plan_scores(served, ScoreWish()), lambda _: reply({}))
    with pytest.raises(Exception, match="no answer to the question"):
        DIALECTS["ollama"].read_scores(plan, reply({"answers": {}}), 1)


def test_windows_is_an_option_of_rerankers_only() -> None:
    assert Reranker("http://localhost:1", too_long="windows")
