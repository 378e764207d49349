"""What is sent to llama.cpp's server, and what is made of its replies."""

import asyncio
import base64
import math

import numpy as np
import pytest

from ragpair import (
    ConfigurationError,
    Embedder,
    EndpointRejected,
    InputTooLong,
    InvalidInput,
    MalformedReply,
    RagpairWarning,
    Reranker,
)

from .cards import card_prompt
from .conftest import Play
from .recordings import NOWHERE
from .servers import (
    LLAMACPP_MINILM,
    LLAMACPP_QWEN3_GENERATES,
    LLAMACPP_QWEN3_RERANKER,
    LLAMACPP_XLMR_RERANKER,
)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
QUERY = "where is my order?"
DOCUMENTS = ["Track your parcel in the Orders page.", "Bananas are yellow.", "Returns are free for 30 days."]
LONG = "word " * 700


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# --- embedding -------------------------------------------------------------------------------------------------------


def test_texts_go_out_as_strings_and_vectors_come_back_as_base64(wire: Play) -> None:
    with wire("llamacpp/embeddings-base64", LLAMACPP_MINILM) as w:
        vectors = Embedder(w.url, family=MINILM).embed_documents(["hello", "world"])
    assert w.gets == ["/v1/models", "/v1/models"]
    assert w.posts == [
        ("/v1/rerank", {"model": "minilm", "query": "q", "documents": ["d"]}),  # 501 is what an embedder says
        ("/v1/embeddings", {"model": "minilm", "input": ["hello", "world"], "encoding_format": "base64"}),
    ]
    assert w.sent[-1].headers["content-type"] == "application/json"
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in w.replies[-1]["data"]]
    np.testing.assert_array_equal(vectors, rows)


def test_floats_are_read_as_well(wire: Play) -> None:
    with wire("llamacpp/embeddings-float", LLAMACPP_MINILM) as w:
        embedder = Embedder(w.url, family=MINILM, extra_body={"encoding_format": "float"})
        vectors = asyncio.run(embedder.aembed_queries(["hello"]))
    np.testing.assert_array_equal(vectors, np.array([row["embedding"] for row in w.replies[-1]["data"]], np.float32))


def test_the_card_tells_the_limit(wire: Play) -> None:
    with wire("llamacpp/cards", LLAMACPP_MINILM) as w:
        told = Embedder(w.url, family=MINILM).describe()
    assert (told["engine"], told["model"], told["limit"]) == ("llamacpp", "minilm", 512)


def test_widths_that_the_server_would_ignore_are_refused(wire: Play) -> None:
    with (
        wire("llamacpp/cards", LLAMACPP_MINILM) as w,
        pytest.raises(ConfigurationError, match="cannot be cut to 64 numbers"),
    ):
        Embedder(w.url, family=MINILM, dimensions=64).embed_documents(["hello"])
    assert [path for path, _ in w.posts] == ["/v1/rerank"]


def test_a_blank_text_is_never_sent() -> None:
    with pytest.raises(InvalidInput, match="document 1 is blank"):
        Embedder(NOWHERE, engine="llamacpp").embed_documents(["hello", ""])


def test_one_long_text_is_found_in_its_batch(wire: Play, waits: list[float]) -> None:
    with wire("llamacpp/too-long-in-a-batch", LLAMACPP_MINILM) as w, pytest.raises(InputTooLong) as caught:
        Embedder(w.url, family=MINILM).embed_documents(["ok", LONG])
    assert [body["input"] for _, body in w.posts[1:]] == [["ok", LONG], ["ok"], [LONG]]
    assert w.replies[-1]["error"]["code"] == 500  # the client's fault with a server's status:
    assert waits == []  # nothing to wait for
    assert (caught.value.index, caught.value.length, caught.value.limit) == (1, 702, 512)


def test_a_long_text_is_cut_by_the_servers_own_count(wire: Play) -> None:
    with wire("llamacpp/truncate", LLAMACPP_MINILM) as w:
        Embedder(w.url, family=MINILM, too_long="truncate").embed_documents([LONG])
    assert w.posts[2] == ("/tokenize", {"content": LONG, "add_special": True})
    (kept,) = w.posts[-1][1]["input"]
    assert LONG.startswith(kept)
    assert w.replies[-1]["usage"]["prompt_tokens"] <= 512


def test_a_language_model_is_no_embedder(wire: Play, waits: list[float]) -> None:
    with (
        wire("llamacpp/language-model-as-embedder", LLAMACPP_QWEN3_GENERATES) as w,
        pytest.raises(EndpointRejected, match="Start llama-server with --embeddings") as caught,
    ):
        Embedder(w.url, family=None).embed_documents(["hello"])
    assert [path for path, _ in w.posts] == ["/v1/rerank", "/v1/embeddings"]
    assert waits == []
    assert caught.value.status == 501


def test_a_reranker_is_no_embedder_though_it_answers_200(wire: Play) -> None:
    with (
        wire("llamacpp/reranker-as-embedder", LLAMACPP_XLMR_RERANKER) as w,
        pytest.raises(ConfigurationError, match="as a reranker: its vectors would be garbage"),
    ):
        Embedder(w.url, family=None).embed_documents(["hello"])
    assert [path for path, _ in w.posts] == ["/v1/rerank"]


# --- reranking: pairs ------------------------------------------------------------------------------------------------

XLMR = "bge-reranker-xlmr"


def test_logits_become_probabilities_in_the_order_of_the_documents(wire: Play) -> None:
    with wire("llamacpp/pairs", LLAMACPP_XLMR_RERANKER) as w:
        scores = Reranker(w.url, family=XLMR).score(QUERY, DOCUMENTS)
    assert w.posts == [
        ("/v1/rerank", {"model": "xlmr-rr", "query": "q", "documents": ["d"]}),
        ("/v1/rerank", {"model": "xlmr-rr", "query": QUERY, "documents": DOCUMENTS}),
    ]
    logits = {row["index"]: row["relevance_score"] for row in w.replies[-1]["results"]}
    assert scores.tolist() == pytest.approx([sigmoid(logits[index]) for index in range(3)], abs=1e-12)


def test_raw_scores_are_the_servers_logits_awaited_too(wire: Play) -> None:
    with wire("llamacpp/pairs-raw", LLAMACPP_XLMR_RERANKER) as w:
        ranked = asyncio.run(Reranker(w.url, family=XLMR, scores="raw").arank(QUERY, DOCUMENTS))
    assert [(one.index, one.score) for one in ranked] == [
        (row["index"], row["relevance_score"]) for row in w.replies[-1]["results"]
    ]
    assert {one.score_kind for one in ranked} == {"logit"}


def test_a_cross_encoder_without_a_family_is_warned_of(wire: Play) -> None:
    with (
        wire("llamacpp/pairs-of-an-unknown-family", LLAMACPP_XLMR_RERANKER) as w,
        pytest.warns(RagpairWarning, match="its scores are taken as logits"),
    ):
        Reranker(w.url).score(QUERY, DOCUMENTS)


def test_one_long_document_is_found_in_its_batch(wire: Play) -> None:
    with wire("llamacpp/pairs-too-long", LLAMACPP_XLMR_RERANKER) as w, pytest.raises(InputTooLong) as caught:
        Reranker(w.url, family=XLMR).score(QUERY, [DOCUMENTS[0], LONG])
    assert [body["documents"] for _, body in w.posts[1:]] == [[DOCUMENTS[0], LONG], [DOCUMENTS[0]], [LONG]]
    assert caught.value.index == 1


def test_a_family_that_llamacpp_ranks_wrongly_is_refused(wire: Play) -> None:
    with (
        wire("llamacpp/cards-for-a-reranker", LLAMACPP_MINILM) as w,
        pytest.raises(ConfigurationError, match="drops a layer and the token types"),
    ):
        Reranker(w.url, family="ms-marco-minilm").score(QUERY, DOCUMENTS)
    assert w.posts == []


def test_an_embedder_is_no_reranker(wire: Play) -> None:
    with (
        wire("llamacpp/embedder-as-reranker", LLAMACPP_MINILM) as w,
        pytest.raises(EndpointRejected, match="Start llama-server with --reranking") as caught,
    ):
        Reranker(w.url, family=None).score(QUERY, DOCUMENTS)
    assert caught.value.status == 501


# --- reranking: Qwen3-Reranker ---------------------------------------------------------------------------------------

QWEN3 = "qwen3-reranker"


def test_a_file_with_a_rank_head_writes_the_prompt_itself(wire: Play) -> None:
    with wire("llamacpp/qwen3-rank-head", LLAMACPP_QWEN3_RERANKER) as w:
        scores = Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert w.posts[-1] == ("/v1/rerank", {"model": "qwen3-reranker", "query": QUERY, "documents": DOCUMENTS})
    probabilities = {row["index"]: row["relevance_score"] for row in w.replies[-1]["results"]}
    assert scores.tolist() == [probabilities[index] for index in range(3)]


def test_an_instruction_that_the_server_cannot_take_is_warned_of(wire: Play) -> None:
    with (
        wire("llamacpp/qwen3-rank-head-instruction", LLAMACPP_QWEN3_RERANKER) as w,
        pytest.warns(RagpairWarning, match="with the default instruction: yours is not used"),
    ):
        Reranker(w.url, family=QWEN3, instruction="Find the order").score(QUERY, DOCUMENTS[:1])


def test_a_plain_language_model_is_judged_by_its_first_token(wire: Play) -> None:
    with wire("llamacpp/qwen3-completion", LLAMACPP_QWEN3_GENERATES) as w:
        scores = Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS[:2])
    asked = {"n_predict": 1, "n_probs": 100, "temperature": 0}
    assert w.posts == [
        ("/v1/rerank", {"model": "qwen3-reranker", "query": "q", "documents": ["d"]}),
        ("/completion", {"prompt": [card_prompt("What is the capital of France?", "Paris.")], **asked}),
        ("/completion", {"prompt": [card_prompt(QUERY, text) for text in DOCUMENTS[:2]], **asked}),
    ]
    for score, answer in zip(scores, w.replies[-1], strict=True):
        listed = {one["token"]: one["logprob"] for one in answer["completion_probabilities"][0]["top_logprobs"]}
        assert score == pytest.approx(sigmoid(listed["yes"] - listed["no"]), abs=1e-12)


def test_a_language_model_that_answers_something_else_is_no_reranker(wire: Play) -> None:
    with (
        wire("llamacpp/gemma-as-reranker") as w,
        pytest.raises(MalformedReply, match="neither 'yes' nor 'no' among the likeliest first tokens"),
    ):
        Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/v1/rerank", "/completion"]


def test_an_answer_that_is_not_listed_is_no_likelier_than_the_last_one(wire: Play) -> None:
    with wire("llamacpp/gemma-without-no") as w:
        (score,) = Reranker(w.url, family=QWEN3, scores="raw").score(QUERY, DOCUMENTS[:1])
    listed = {one["token"]: one["logprob"] for one in w.replies[-1]["completion_probabilities"][0]["top_logprobs"]}
    assert len(listed) == 100
    assert "no" not in listed
    assert score == pytest.approx(sigmoid(listed["yes"] - min(listed.values())), abs=1e-12)


# --- reranking: models that decide -----------------------------------------------------------------------------------


def test_a_model_that_decides_is_asked_one_question_a_document(wire: Play) -> None:
    with wire("llamacpp/decisions") as w:
        scores = Reranker(w.url, family=None).score(QUERY, DOCUMENTS[:1])
    assert w.posts == [
        (
            "/v1/systemone",
            {
                "model": "gguf/smollm2-fake-openjev.gguf",
                "state": {"query": QUERY, "document": DOCUMENTS[0]},
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
            },
        )
    ]
    assert scores.tolist() == [w.replies[-1]["answers"]["relevant"]["noul"]]
