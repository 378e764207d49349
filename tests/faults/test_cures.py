"""Replies that are 200 and wrong: each says what it is, and ends with what mends it."""

import re

import pytest

from ragpair import MalformedReply
from ragpair.testing import Fault, edits

from .cases import TEXTS, Way

BETWEEN = r"Pass the server's own address, or the right engine=\."
LOST = r"Pass the server's own address; batch_size=1 shows whether it is for one text\."
OVERFLOWS = r"serve it in bfloat16 or float32 \(--dtype, on vLLM and SGLang\)\."
STATUS = "look at its log."

EMBED = Way("vllm", "embed")
OLLAMA = Way("ollama", "embed")
PAIRS = Way("vllm", "rerank")
PROMPTS = Way("vllm", "answers")
SGLANG = Way("sglang", "answers")
LIKELY = Way("llamacpp", "answers")


def vector(value):
    return lambda reply: [row.update(embedding=value) for row in reply["data"]][:0] or None


def row(**fields):
    return lambda reply: reply["data"][0].update(fields)


def without(name):
    return lambda reply: reply["data"][0].pop(name) and None


def first_token(**fields):
    return lambda reply: reply[0]["completion_probabilities"][0]["top_logprobs"][0].update(fields)


KINDS = [
    # vectors
    (EMBED, vector("not base64!"), "an embedding that is no base64", BETWEEN),
    (EMBED, vector("AAAA"), "bytes are no numbers of 4 bytes", BETWEEN),
    (EMBED, vector(None), "None in place of an embedding", BETWEEN),
    (EMBED, vector({"values": [1]}), r"\{'values': \[1\]\} in place of an embedding", BETWEEN),
    (EMBED, vector([[0.5] * 8] * 2), "a matrix in place of a vector", r"launch it for pooled embeddings\."),
    (EMBED, vector([[0.5] * 8, [0.5]]), "a matrix in place of a vector", r"launch it for pooled embeddings\."),
    (EMBED, vector([]), "empty vectors", r"look at its log, or update it\."),
    (EMBED, vector([0.0] * 8), "a vector of zeros", "whether it is the text."),
    (EMBED, without("embedding"), "a result without 'embedding'", BETWEEN),
    (EMBED, edits.narrow, r"different widths: \[7, 8\]", BETWEEN),
    (EMBED, edits.nan, "a vector that holds NaN, infinity or null", OVERFLOWS),
    # lists
    (EMBED, edits.one_missing, "2 results for 3 inputs; none for input 2", LOST),
    (EMBED, edits.one_too_many, "index 3 for 3 inputs", BETWEEN),
    (EMBED, edits.no_index, "index None", BETWEEN),
    (EMBED, edits.same_index, "two results with index 0", BETWEEN),
    (EMBED, lambda _: {"results": []}, "no list of results", BETWEEN),
    (OLLAMA, edits.one_missing, "2 embeddings for 3 inputs", LOST),
    (OLLAMA, edits.one_too_many, "4 embeddings for 3 inputs", BETWEEN),
    (OLLAMA, lambda _: {"data": []}, "no list of embeddings", BETWEEN),
    # scores
    (PAIRS, row(score="high"), "a score that is no number", BETWEEN),
    (PAIRS, row(score=[1.0]), "a score that is no", BETWEEN),
    (PAIRS, row(score=None), "a score that is NaN, infinity or null", OVERFLOWS),
    (PAIRS, row(score=3.7), "3.7 in place of a probability", "Make the reranker anew: it looks again."),
    (PAIRS, without("score"), "a result without 'score'", BETWEEN),
    (PROMPTS, without("probs"), "a result without 'probs'", BETWEEN),
    (PROMPTS, row(probs=[]), "a row without scores", BETWEEN),
    (SGLANG, lambda _: {"data": []}, "no list of rows of scores", BETWEEN),
    (SGLANG, edits.one_missing, "2 rows of scores for 3 inputs", LOST),
    (SGLANG, lambda reply: reply["scores"].__setitem__(0, None), "a row without scores", BETWEEN),
    # likelihoods
    (LIKELY, first_token(logprob=None), "a likelihood that is null", OVERFLOWS),
    (LIKELY, first_token(logprob=0.9), "no logarithm of a probability", r"Update the engine\."),
    (LIKELY, lambda reply: reply[0].pop("completion_probabilities") and None, "no token likelihoods", "update it."),
    (Way("ollama", "answers"), lambda reply: reply.pop("logprobs") and None, "no token likelihoods", "language model."),
    # errors with the wrong status
    (EMBED, lambda _: {"error": {"message": "upstream quota", "code": 429}}, "an error: upstream quota", STATUS),
    (OLLAMA, lambda _: {"error": "model overloaded"}, "an error: model overloaded", STATUS),
    (SGLANG, lambda _: {"object": "error", "message": "no room", "code": 503}, "an error: no room", STATUS),
]


@pytest.mark.parametrize(("way", "edit", "told", "cure"), KINDS, ids=[f"{way}: {told}" for way, _, told, _ in KINDS])
def test_a_wrong_reply_says_what_it_is_and_what_mends_it(embedder, reranker, way, edit, told, cure):
    with way.server() as server:
        one = (embedder if way.task == "embed" else reranker)(server)
        method, *arguments = way.arguments(TEXTS)
        getattr(one, method)(*arguments)
        server.fail(Fault.edit(edit))
        with pytest.raises(MalformedReply) as caught:
            getattr(one, method)(*arguments)
    # The texts of a request are named after the cure.
    assert re.fullmatch(rf"{server.url}/\S+ answered .* with .*{told}.* .*{cure}( \(texts? .*\))?", str(caught.value))
    assert str(caught.value).count("gateway") <= 1  # one cure, not two


@pytest.mark.parametrize("way", [PAIRS, PROMPTS, LIKELY], ids=str)
def test_a_model_that_overflows_at_the_first_request_is_told_like_any_later_one(reranker, way):
    with way.server() as server:
        server.fail(Fault.edit(edits.nan, times=None))
        with pytest.raises(MalformedReply, match=OVERFLOWS):
            reranker(server).score("q", TEXTS)


def test_an_error_in_place_of_the_list_of_models_is_told(embedder):
    with EMBED.server() as server:
        server.fail(Fault.edit(lambda _: {"error": "upstream quota"}, path="/v1/models", times=None))
        with pytest.raises(MalformedReply, match=r"/v1/models answered 200 with an error: upstream quota\."):
            embedder(server, engine="vllm").embed_documents(TEXTS)
