"""Conversations fed by hand: no HTTP, no threads, no loop. The fake engines answer as plain functions."""

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpair import InputTooLong, MalformedReply
from ragpair.catalog import family
from ragpair.dialects import DIALECTS
from ragpair.dialects.base import ScorePlan, Served
from ragpair.flows import Cut, EmbedJob, Report, ScoreJob, embed, score
from ragpair.pace import Pace
from ragpair.prompts import Prompt, frame
from ragpair.testing import model
from ragpair.testing.engines import ENGINES
from ragpair.wire import Gather, Reply

LIMIT = 60
texts = st.lists(st.text("ab 中文\n?", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=40)


class Conversation:
    """Answers a flow with a fake engine, and writes down what was asked."""

    def __init__(self, engine="vllm", task="embed", edit=None):
        self.engine = ENGINES[engine](None, task, 32, LIMIT, None)
        self.edit = edit
        self.calls = []

    def run(self, flow):
        answer, error = None, None
        while True:
            try:
                step = flow.throw(error) if error else flow.send(answer)
            except StopIteration as stop:
                return stop.value
            answer, error = None, None
            try:
                answer = [self.run(inner) for inner in step.flows] if isinstance(step, Gather) else self.reply(step)
            except Exception as exc:
                error = exc

    def reply(self, call):
        self.calls.append(call)
        body = orjson.loads(orjson.dumps(call.body))
        answer = self.engine.answer("POST", call.path, body)
        if self.edit is not None and answer.status == 200:
            self.edit(answer.body)
        return Reply(answer.status, orjson.dumps(answer.body), "http://fake", call.path)

    @property
    def sent(self):
        """The texts of each request that embeds."""
        return [call.body["input"] for call in self.calls if "input" in call.body]


def embed_job(engine="vllm", batch_size=8, too_long="error", **more):
    where = DIALECTS[engine], served(engine)
    return EmbedJob(*where, Pace(batch_size), too_long, {}, "http://server", more.pop("report", Report()), **more)


def served(engine):
    return Served(engine, ENGINES[engine].names["embed"], limit=LIMIT - (engine == "sglang"))


def truth(given, prompt=Prompt()):  # noqa: B008
    return np.array([model.embed(prompt.render(text), 32) for text in given])


# --- embedding ---


@given(texts, st.integers(1, 12), st.randoms())
def test_each_text_gets_its_own_vector(given, batch_size, random):
    talk = Conversation(edit=lambda reply: random.shuffle(reply["data"]))
    prompt = Prompt("p: ", "!")
    vectors = talk.run(embed(embed_job(batch_size=batch_size, prompt=prompt), given))
    np.testing.assert_allclose(vectors, truth(given, prompt), atol=1e-6)
    assert vectors.dtype == np.float32
    assert [text for batch in talk.sent for text in batch] == [prompt.render(text) for text in dict.fromkeys(given)]
    assert all(len(batch) <= batch_size for batch in talk.sent)
    assert len(talk.sent) == math.ceil(len(set(given)) / batch_size)


@given(st.integers(1, 40), st.integers(1, 50), st.data())
def test_bisecting_names_the_text_that_is_too_long(count, batch_size, data):
    position = data.draw(st.integers(0, count - 1))
    given = [f"text {n}" for n in range(count)]
    given[position] = "long " * 70
    talk = Conversation()
    with pytest.raises(InputTooLong, match=f"text {position} ") as caught:
        talk.run(embed(embed_job(batch_size=batch_size), given))
    assert caught.value.index == position
    assert caught.value.limit == LIMIT
    assert len(talk.calls) <= math.ceil(count / batch_size) + 2 * math.log2(batch_size) + 2


@given(st.sampled_from(sorted(ENGINES)), st.integers(1, 12), st.integers(1, 12), st.data())
def test_truncating_costs_the_others_nothing_and_never_cuts_the_prompt(engine, count, batch_size, data):
    position = data.draw(st.integers(0, count - 1))
    given = [f"text {n}" for n in range(count)]
    given[position] = " ".join(f"w{n}" for n in range(200))
    prompt = data.draw(st.sampled_from([Prompt(), Prompt("find the text: "), Prompt("find: ", " <end>")]))
    talk = Conversation(engine)
    vectors = talk.run(embed(embed_job(engine, batch_size, "truncate", prompt=prompt), given))
    expected = truth(given, prompt)
    others = [n for n in range(count) if n != position]
    np.testing.assert_allclose(vectors[others], expected[others], atol=1e-6)
    for text in [text for batch in talk.sent for text in batch]:
        assert text.startswith(prompt.prefix)
        assert text.endswith(prompt.suffix)
        core = text.removeprefix(prompt.prefix).removesuffix(prompt.suffix)
        assert core in given or given[position].startswith(core)
    if not prompt.suffix and DIALECTS[engine].truncates:
        last = model.cut(prompt.render(given[position]), LIMIT - 2)
    else:
        last = next(text for batch in reversed(talk.sent) for text in batch if "w0" in text)
    assert model.count_tokens(last) > LIMIT // 2  # most of the room is used
    np.testing.assert_allclose(vectors[position], model.embed(last, 32), atol=1e-6)


def test_no_room_beside_the_prompt_is_an_error_not_a_loop():
    prompt = Prompt("word " * 100)
    for engine in ("sglang", "llamacpp"):
        with pytest.raises(InputTooLong, match="no room"):
            Conversation(engine).run(embed(embed_job(engine, too_long="truncate", prompt=prompt), ["short"]))


def test_length_and_limit_are_told_where_the_engine_tells_them():
    for engine, length, limit in (("sglang", 72, 59), ("llamacpp", 72, 60), ("vllm", None, 60), ("ollama", None, 60)):
        with pytest.raises(InputTooLong) as caught:
            Conversation(engine).run(embed(embed_job(engine), ["word " * 70]))
        assert (caught.value.length, caught.value.limit, caught.value.index) == (length, limit, 0)
        assert caught.value.endpoint == "http://fake"


def test_a_full_queue_is_fed_in_smaller_bites():
    class Full(Conversation):
        def reply(self, call):
            if len(call.body["input"]) > 3:
                self.calls.append(call)
                return Reply(
                    503, b'{"object":"error","message":"The request queue is full."}', "http://fake", call.path
                )
            return super().reply(call)

    given = [f"t{n}" for n in range(10)]
    np.testing.assert_allclose(Full("sglang").run(embed(embed_job("sglang", 10), given)), truth(given), atol=1e-6)


def test_vectors_are_normalised_if_the_server_does_not():
    def double(reply):
        for row in reply["embeddings"]:
            row[:] = [2 * x for x in row]

    vectors = Conversation("ollama", edit=double).run(embed(embed_job("ollama"), ["a", "b"]))
    np.testing.assert_allclose(vectors, truth(["a", "b"]), atol=1e-6)


def test_normalised_vectors_stay_as_they_are_bit_for_bit():
    vectors = Conversation().run(embed(embed_job(), ["a", "b"]))
    assert (vectors == truth(["a", "b"])).all()


def test_cutting_with_and_without_layer_norm():
    full = truth(["a", "b"])
    for layer_norm in (False, True):
        vectors = Conversation().run(embed(embed_job(cut=Cut(8, layer_norm)), ["a", "b"]))
        base = (full - full.mean(axis=1, keepdims=True)) / full.std(axis=1, keepdims=True) if layer_norm else full
        expected = base[:, :8] / np.linalg.norm(base[:, :8], axis=1, keepdims=True)
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_vector_of_zeros_is_no_vector():
    def erase(reply):
        reply["embeddings"][1][:] = [0.0] * 32

    with pytest.raises(MalformedReply, match="zeros"):
        Conversation("ollama", edit=erase).run(embed(embed_job("ollama"), ["a", "b"]))


# --- scoring ---

QWEN = frame(family("qwen3-reranker", "reranker"))
PLANS = {
    "vllm": (ScorePlan("classify", "probability", QWEN), "answers"),
    "sglang": (ScorePlan("rerank", "logit"), "rerank"),
    "ollama": (ScorePlan("generate", "probability", QWEN, per_call=1, answers=("yes", "no")), "answers"),
    "llamacpp": (ScorePlan("completion", "probability", QWEN, answers=("yes", "no")), "answers"),
}


def score_job(engine, query, batch_size=8, too_long="error"):
    plan, task = PLANS[engine]
    where = Served(engine, ENGINES[engine].names[task], limit=LIMIT - (engine == "sglang"))
    return ScoreJob(
        DIALECTS[engine], where, Pace(batch_size), too_long, {}, "http://server", Report(), plan, query, "probability"
    )


@given(st.sampled_from(sorted(ENGINES)), st.lists(st.text("ab 中文", max_size=6), max_size=20), st.integers(1, 9))
def test_each_document_gets_its_own_score(engine, documents, batch_size):
    talk = Conversation(engine, PLANS[engine][1])
    values = talk.run(score(score_job(engine, "a b", batch_size), documents))
    expected = [model.sigmoid(model.logit("a b", text)) if text.strip() else 0.0 for text in documents]
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert not documents or all(values[n] == 0 for n, text in enumerate(documents) if not text.strip())


@given(st.sampled_from(sorted(ENGINES)), st.integers(1, 9), st.integers(1, 9), st.data())
def test_the_document_that_is_too_long_is_named(engine, count, batch_size, data):
    position = data.draw(st.integers(0, count - 1))
    documents = [f"text {n}" for n in range(count)]
    documents[position] = "long " * 70
    with pytest.raises(InputTooLong, match=f"document {position} ") as caught:
        Conversation(engine, PLANS[engine][1]).run(score(score_job(engine, "q", batch_size), documents))
    assert caught.value.index == position


@given(st.sampled_from(sorted(ENGINES)), st.integers(1, 6), st.data())
def test_truncating_a_document_leaves_prompt_query_and_others_alone(engine, count, data):
    position = data.draw(st.integers(0, count - 1))
    documents = [f"about {n}" for n in range(count)]
    documents[position] = "parcel " + " ".join(f"w{n}" for n in range(200))
    talk = Conversation(engine, PLANS[engine][1])
    values = talk.run(score(score_job(engine, "parcel", 4, "truncate"), documents))
    assert values[position] == pytest.approx(model.sigmoid(4.0), abs=1e-6)
    assert all(values[n] == pytest.approx(model.sigmoid(-4.0), abs=1e-6) for n in range(count) if n != position)
    head, tail = QWEN.full("parcel", "\0").split("\0")
    for call in talk.calls:
        if "documents" in call.body:
            assert call.body["query"] == "parcel"
        names = ("input", "items", "prompt") if "tokenize" not in call.path else ()
        for prompts in [call.body[name] for name in names if name in call.body]:
            for prompt in [prompts] if isinstance(prompts, str) else prompts:
                assert prompt.startswith(head)
                assert prompt.endswith(tail)


def test_a_list_that_must_be_compared_as_a_whole_is_not_split():
    plan = ScorePlan("score", "probability", whole=True)
    where = DIALECTS["vllm"], Served("vllm", ENGINES["vllm"].names["rerank"])
    job = ScoreJob(*where, Pace(2), "error", {}, "http://server", Report(), plan, "q", "probability")
    talk = Conversation("vllm", "rerank")
    talk.run(score(job, [f"d{n}" for n in range(9)]))
    assert [len(call.body["text_2"]) for call in talk.calls] == [9]
