"""Replies that are 200 and wrong: each says what it is, and ends with what mends it."""

import base64
import re

import numpy as np
import pytest

from ragpair import MalformedReply
from ragpair.testing import Fault, edits

from .cases import DIMS, TEXTS, Way

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


# --- vectors that come as float32 where float16 was asked for ---

IGNORED = r"float32 where embed_dtype='float16' was asked for.*Leave embed_dtype out"


def as_float32(scale=1.0):
    """What an engine sends that drops the wish: every vector anew, in numbers twice as wide."""

    def edit(reply):
        for one in reply["data"]:
            halves = np.frombuffer(base64.b64decode(one["embedding"]), "<f2").astype("<f4")
            one["embedding"] = base64.b64encode((halves * scale).tobytes()).decode()

    return edit


@pytest.mark.parametrize("dims", [DIMS, 64, 1024])
def test_float32_is_never_read_as_float16(serve, embedder, call, dims):
    server = serve("vllm", dims=dims)
    server.fail(Fault.edit(as_float32(), times=None))
    with pytest.raises(MalformedReply, match=IGNORED):
        call(embedder(server, embed_dtype="float16"), "embed_documents", TEXTS)
    assert len(server.work) == 1


@pytest.mark.parametrize("version", ["0.11.0", "0.12.0"])
def test_an_old_version_that_a_gateway_hides_is_noticed(serve, embedder, version):
    server = serve("vllm", hidden=["/version"], version=version)
    one = embedder(server, embed_dtype="float16")
    with pytest.raises(MalformedReply, match=IGNORED):
        one.embed_documents(TEXTS)
    assert embedder(server).embed_documents(TEXTS).shape == (3, 64)  # the cure


def test_a_change_of_version_is_noticed(serve, embedder):
    server = serve("vllm")
    one = embedder(server, embed_dtype="float16")
    assert one.embed_queries(["a"]).shape == (1, 64)
    server.fail(Fault.edit(as_float32()))
    with pytest.raises(MalformedReply, match=IGNORED):
        one.embed_queries(["a"])


def test_vectors_that_are_not_normalised_are_known_by_their_width(serve, embedder):
    server = serve("vllm", model="BAAI/bge-m3", dims=1024)
    server.fail(Fault.edit(as_float32(scale=7.0)))
    with pytest.raises(MalformedReply, match=IGNORED):
        embedder(server, embed_dtype="float16").embed_documents(TEXTS)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 14.0, 16.0, 18.0, 20.0, 300.0])
def test_true_float16_of_any_length_is_taken(serve, embedder, scale):
    def scaled(reply):
        for one in reply["data"]:
            halves = np.frombuffer(base64.b64decode(one["embedding"]), "<f2")
            one["embedding"] = base64.b64encode((halves * np.float16(scale)).tobytes()).decode()

    server = serve("vllm", model="BAAI/bge-m3", dims=1024)
    server.fail(Fault.edit(scaled))
    vectors = embedder(server, embed_dtype="float16").embed_documents(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)


def test_normalised_float16_of_twice_the_known_width_is_taken(serve, embedder):
    """The catalogue may know another width than the one that is served."""
    server = serve("vllm", model="BAAI/bge-m3", dims=2048)
    assert embedder(server, embed_dtype="float16").embed_documents(TEXTS).shape == (3, 2048)


def test_replicas_of_which_one_ignores_float16_are_told_why(serve, embedder):
    servers = [serve("vllm"), serve("vllm", hidden=["/version"], version="0.11.0")]
    with pytest.raises(MalformedReply, match=IGNORED) as caught:
        embedder([server.url for server in servers], embed_dtype="float16").embed_documents(TEXTS)
    assert caught.value.endpoint == servers[1].url
