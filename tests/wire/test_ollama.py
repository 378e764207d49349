"""What is sent to Ollama, and what is made of its replies.

No Ollama can be run where these cassettes were made: they are written from its source, as each of them says. What is
sent is what is shown here; that Ollama replies like this is as sure as its source was read well.
"""

import asyncio
import math

import numpy as np
import pytest

from ragpair import (
    ConfigurationError,
    Embedder,
    EndpointOverloaded,
    EndpointRejected,
    InputTooLong,
    MalformedReply,
    RagpairWarning,
    Reranker,
)

from .cards import card_prompt
from .conftest import Play

LONG = "word " * 600


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# --- embedding -------------------------------------------------------------------------------------------------------


def test_texts_go_to_the_native_route_and_must_not_be_cut_in_silence(wire: Play) -> None:
    texts = ["Why is the sky blue?", "Why is the grass green?"]
    with wire("ollama-from-source/embeddings") as w:
        vectors = Embedder(w.url, "all-minilm").embed_documents(texts)
    assert w.posts == [
        ("/api/show", {"model": "all-minilm"}),
        ("/api/embed", {"model": "all-minilm", "input": texts, "truncate": False}),
    ]
    assert w.sent[-1].headers["content-type"] == "application/json"
    rows = np.array(w.replies[-1]["embeddings"])
    np.testing.assert_allclose(vectors, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)


def test_runner_options_are_the_users_own(wire: Play) -> None:
    options = {"num_ctx": 8192, "num_batch": 8192}
    with wire("ollama-from-source/embeddings") as w:
        Embedder(w.url, "all-minilm", extra_body={"options": options}).embed_documents(
            ["Why is the sky blue?", "Why is the grass green?"]
        )
    assert w.posts[-1][1]["options"] == options


def test_the_only_embedding_model_needs_no_name_awaited_too(wire: Play) -> None:
    with wire("ollama-from-source/only-embedder") as w:
        asyncio.run(Embedder(w.url).aembed_queries(["hello"]))
    assert w.posts[-1] == ("/api/embed", {"model": "all-minilm:latest", "input": ["hello"], "truncate": False})


def test_one_of_several_models_must_be_named(wire: Play) -> None:
    with (
        wire("ollama-from-source/several-models") as w,
        pytest.raises(ConfigurationError, match="pass model=, one of 'all-minilm:latest', 'bge-m3:latest'"),
    ):
        Embedder(w.url).embed_queries(["hello"])


def test_fewer_vectors_than_texts_are_an_error(wire: Play) -> None:
    with wire("ollama-from-source/too-few-embeddings") as w, pytest.raises(MalformedReply, match="0 embeddings for 2"):
        Embedder(w.url, "all-minilm").embed_documents(["Why is the sky blue?", "Why is the grass green?"])


def test_one_long_text_is_found_in_its_batch(wire: Play) -> None:
    with wire("ollama-from-source/too-long-in-a-batch") as w, pytest.raises(InputTooLong) as caught:
        Embedder(w.url, "all-minilm").embed_documents(["fine", LONG])
    assert [body["input"] for _, body in w.posts[1:]] == [["fine", LONG], ["fine"], [LONG]]
    assert (caught.value.index, caught.value.limit) == (1, 256)  # num_ctx of the Modelfile, below the model's 512


def test_a_long_text_is_cut_by_the_server_if_the_user_wants_it(wire: Play) -> None:
    with wire("ollama-from-source/truncate") as w:
        Embedder(w.url, "all-minilm", too_long="truncate").embed_documents(["fine", LONG])
    assert w.posts[-1] == ("/api/embed", {"model": "all-minilm", "input": ["fine", LONG], "truncate": True})


def test_the_cap_of_encoders_that_no_reply_tells_is_known(wire: Play) -> None:
    with wire("ollama-from-source/batch-cap") as w:
        told = Embedder(w.url, "bge-m3").describe()
    assert w.replies[-1]["model_info"]["bert.context_length"] == 8192
    assert told["limit"] == 2048


def test_numbers_that_are_none_are_refused_by_the_server(wire: Play) -> None:
    with wire("ollama-from-source/nan") as w, pytest.raises(EndpointRejected, match="embedding contains NaN") as caught:
        Embedder(w.url, "all-minilm").embed_documents(["hello"])
    assert caught.value.status == 400


def test_a_full_queue_is_overload(wire: Play, waits: list[float]) -> None:
    with wire("ollama-from-source/busy") as w, pytest.raises(EndpointOverloaded, match="server busy"):
        Embedder(w.url, "all-minilm", max_retries=1).embed_documents(["hello"])
    assert len(waits) == 1


def test_a_missing_model_can_be_pulled(wire: Play) -> None:
    with (
        wire("ollama-from-source/missing-model") as w,
        pytest.raises(ConfigurationError, match=r"has 'all-minilm:latest'\. Get it with: ollama pull bge-m3"),
    ):
        Embedder(w.url, "bge-m3").embed_documents(["hello"])


def test_a_model_without_the_capability_is_no_embedder(wire: Play) -> None:
    with (
        wire("ollama-from-source/language-model-as-embedder") as w,
        pytest.raises(ConfigurationError, match="it can do completion, tools, thinking"),
    ):
        Embedder(w.url, "qwen3:0.6b").embed_documents(["hello"])


def test_a_reranker_that_would_answer_with_garbage_is_no_embedder(wire: Play) -> None:
    with (
        wire("ollama-from-source/rank-head-as-embedder") as w,
        pytest.raises(ConfigurationError, match=r"converted for llama\.cpp's rerank route"),
    ):
        Embedder(w.url, "qwen3-reranker").embed_documents(["hello"])
    assert [path for path, _ in w.posts] == ["/api/show"]


# --- reranking -------------------------------------------------------------------------------------------------------

MODEL = "sam860/qwen3-reranker:0.6b"
QUERY = "where is my order?"
DOCUMENTS = ["Track your parcel in the Orders page.", "Bananas are yellow."]


def asked(query: str, document: str) -> tuple[str, dict[str, object]]:
    return (
        "/api/generate",
        {
            "model": MODEL,
            "prompt": card_prompt(query, document),
            "raw": True,
            "stream": False,
            "think": False,
            "truncate": False,
            "logprobs": True,
            "top_logprobs": 20,
            "options": {"num_predict": 1, "temperature": 0},
        },
    )


def test_each_document_is_judged_by_the_first_token_of_an_answer(wire: Play) -> None:
    with wire("ollama-from-source/reranker") as w:
        scores = Reranker(w.url, MODEL, max_concurrency=1).score(QUERY, DOCUMENTS)
    assert w.posts == [
        ("/api/show", {"model": MODEL}),
        asked("What is the capital of France?", "Paris."),
        *(asked(QUERY, document) for document in DOCUMENTS),
    ]
    assert scores.tolist() == pytest.approx([sigmoid(-0.05 + 3.1), sigmoid(-4.6 + 0.01)], abs=1e-12)


def test_an_answer_that_is_not_listed_is_no_likelier_than_the_last_one(wire: Play) -> None:
    with wire("ollama-from-source/reranker-unlisted") as w:
        (score,) = Reranker(w.url, MODEL).score(QUERY, DOCUMENTS[:1])
    assert score == pytest.approx(sigmoid(-9.25 + 0.001), abs=1e-12)


def test_a_model_that_hardly_answers_yes_or_no_is_warned_of(wire: Play) -> None:
    with (
        wire("ollama-from-source/reranker-unsure") as w,
        pytest.warns(RagpairWarning, match=r"with 'yes' or 'no' only 9% of the time"),
    ):
        Reranker(w.url, MODEL).describe()


def test_an_answer_that_ends_before_it_begins_is_no_score(wire: Play) -> None:
    with (
        wire("ollama-from-source/reranker-silent") as w,
        pytest.raises(MalformedReply, match="stopped without an answer"),
    ):
        Reranker(w.url, MODEL).score(QUERY, DOCUMENTS)


def test_llamacpps_error_inside_ollamas_tells_the_length(wire: Play) -> None:
    with wire("ollama-from-source/reranker-too-long") as w, pytest.raises(InputTooLong) as caught:
        Reranker(w.url, MODEL, max_concurrency=1).score(QUERY, [DOCUMENTS[0], LONG])
    assert (caught.value.index, caught.value.length, caught.value.limit) == (1, 3002, 2048)


def test_a_version_without_likelihoods_is_refused(wire: Play) -> None:
    with (
        wire("ollama-from-source/reranker-on-0.12.10") as w,
        pytest.raises(ConfigurationError, match=r"It has them since 0\.12\.11"),
    ):
        Reranker(w.url, MODEL).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/api/show"]


def test_a_cross_encoder_is_refused_though_it_says_completion(wire: Play) -> None:
    with (
        wire("ollama-from-source/cross-encoder") as w,
        pytest.raises(ConfigurationError, match="runs no cross-encoders and has no rerank route"),
    ):
        Reranker(w.url, "qllama/bge-reranker-v2-m3").score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/api/show"]
