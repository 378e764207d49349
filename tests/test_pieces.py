"""Prompts that their authors tokenize piece by piece: sent in the server's tokens, so that none reaches over a seam."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from ragpair.catalog import RerankerFamily, families, family
from ragpair.dialects import DIALECTS
from ragpair.dialects.base import ScoreWish, Served
from ragpair.flows import Report, ScoreJob, score
from ragpair.pace import Pace
from ragpair.prompts import frame
from ragpair.wire import Call, Flow, Gather, Reply

MXBAI = "mixedbread-ai/mxbai-rerank-base-v2"
SERVED = Served("vllm", "mxbai")


def play(flow: Flow[Any], server: Callable[[Call], Reply]) -> Any:
    answer: Any = None
    while True:
        try:
            step = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = [play(one, server) for one in step.flows] if isinstance(step, Gather) else server(step)


class Tokenizing:
    """A vLLM whose tokens are code points; it scores a prompt by the letters in it that are an "x"."""

    def __init__(self, *, hides_tokenize: bool = False) -> None:
        self.calls: list[Call] = []
        self.hides_tokenize = hides_tokenize

    def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        body: Any = call.body
        if call.path == "/tokenize":
            if self.hides_tokenize:
                return Reply(404, b'{"detail":"Not Found"}', "http://server", call.path)
            assert body["add_special_tokens"] is False
            return self.reply(call, {"tokens": [ord(c) for c in body["prompt"]], "count": len(body["prompt"])})
        logits = [float(list(map(chr, p)).count("x") if isinstance(p, list) else p.count("x")) for p in body["input"]]
        values = logits if body.get("use_activation") is False else [1 / (1 + np.exp(-x)) for x in logits]
        rows = [{"index": n, "probs": [float(value)], "num_classes": 1} for n, value in enumerate(values)]
        return self.reply(call, {"data": rows})

    @staticmethod
    def reply(call: Call, body: Any) -> Reply:
        return Reply(200, orjson.dumps(body), "http://server", call.path)

    def prompts(self) -> list[str]:
        sent = [p for c in self.calls if c.path == "/classify" for p in c.body["input"]]  # type: ignore[index]
        return ["".join(map(chr, prompt)) for prompt in sent if isinstance(prompt, list)]


def plan(server: Tokenizing, instruction: str | None = None, *, raw: bool = False) -> Any:
    mxbai = family(MXBAI, "reranker")
    wish = ScoreWish(mxbai, frame(mxbai, instruction), instruction, raw)
    return play(DIALECTS["vllm"].plan_scores(SERVED, wish), server)


def job(server: Tokenizing, query: str) -> ScoreJob:
    found = plan(server, raw=True)
    return ScoreJob(DIALECTS["vllm"], SERVED, Pace(2), "error", {}, "http://server", Report(), found, query, "raw")


@pytest.mark.parametrize("name", [one.id for one in families().values() if isinstance(one, RerankerFamily)])
def test_pieces_are_the_frame(name: str) -> None:
    made = frame(family(name, "reranker"))
    if made is None or not made.pieces:
        return
    texts = {"query": "the query", "document": "the document", None: ""}
    joined = "".join(piece.prompt.render(texts[piece.slot]) for piece in made.pieces)
    assert joined.removeprefix("<bos>") == made.full("the query", "the document")


def test_the_prompt_is_sent_in_the_tokens_of_its_pieces() -> None:
    server = Tokenizing()
    documents = ["x", "xxx?", "", "x\n"]
    scores = play(score(job(server, "where?"), documents), server)
    whole = frame(family(MXBAI, "reranker"))
    assert whole is not None
    assert sorted(server.prompts()) == sorted(whole.full("where?", text) for text in documents if text)
    np.testing.assert_allclose(scores[[1, 3]] - scores[0], [2, 0], atol=1e-6)
    assert scores[2] < scores[0]  # the blank one, unsent
    tokenized = [call.body["prompt"] for call in server.calls if call.path == "/tokenize"]  # type: ignore[index]
    assert "query: where?" in tokenized
    assert "document: xxx?" in tokenized
    assert tokenized.count("\n") == 2  # once a seam, when the way was found, and never again


def test_an_instruction_stands_in_the_piece_of_the_query() -> None:
    server = Tokenizing()
    made = plan(server, "find x")
    assert made.frame.pieces[1].prompt.render("q") == "instruction: find x\nquery: q"


def test_control_tokens_are_broken_in_pieces_too() -> None:
    server = Tokenizing()
    play(score(job(server, "q"), ["<|im_end|>x"]), server)
    assert "document: < |im_end|>x" in server.prompts()[-1]


def test_a_server_that_hides_tokenize_gets_one_text_and_the_user_a_warning() -> None:
    server = Tokenizing(hides_tokenize=True)
    found = plan(server)
    assert not found.constants
    assert "piece by piece" in found.cautions[0]


def test_other_engines_warn_of_seams() -> None:
    mxbai = family(MXBAI, "reranker")
    wish = ScoreWish(mxbai, frame(mxbai))

    def server(call: Call) -> Reply:
        return Reply(200, orjson.dumps({"tokens": [16]}), "http://server", call.path)

    found = play(DIALECTS["sglang"].plan_scores(Served("sglang", "m", kind="generate"), wish), server)
    assert "piece by piece" in found.cautions[0]
