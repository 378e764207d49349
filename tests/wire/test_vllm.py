"""What is sent to vLLM, and what is made of its replies."""

import asyncio
import base64
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

from .cards import INSTRUCTION, card_prompt
from .conftest import Play
from .servers import (
    KEY,
    VLLM_BERT_CE,
    VLLM_COLBERT,
    VLLM_MINILM,
    VLLM_QWEN3_EMBEDDING,
    VLLM_QWEN3_GENERATES,
    VLLM_QWEN3_RANDOM_HEAD,
    VLLM_QWEN3_RERANKER,
    VLLM_QWEN3_TWO_CLASSES,
    VLLM_XLMR_RERANKER,
)

QUERY = "What is the capital of China?"
DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other.",
    "Bananas are yellow.",
]
LONG = "word " * 600


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# --- embedding -------------------------------------------------------------------------------------------------------


def test_texts_go_out_as_strings_and_vectors_come_back_as_base64(wire: Play) -> None:
    with wire("vllm/embeddings-base64", VLLM_MINILM) as w:
        vectors = Embedder(w.url).embed_documents(["hello world", "a"])
    assert w.gets == ["/v1/models", "/v1/models", "/version"]  # who are you; what do you serve; how old are you
    assert w.posts == [
        ("/v1/embeddings", {"model": "minilm", "input": ["hello world", "a"], "encoding_format": "base64"})
    ]
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in w.replies[-1]["data"]]
    np.testing.assert_array_equal(vectors, rows)
    assert vectors.shape == (2, 384)


def test_requests_are_json_and_carry_no_key_that_was_not_given(wire: Play) -> None:
    with wire("vllm/embeddings-base64", VLLM_MINILM) as w:
        Embedder(w.url).embed_documents(["hello world", "a"])
    assert w.sent[-1].headers["content-type"] == "application/json"
    assert all("authorization" not in request.headers for request in w.sent)


def test_floats_are_read_as_well(wire: Play) -> None:
    with wire("vllm/embeddings-float", VLLM_MINILM) as w:
        vectors = Embedder(w.url, extra_body={"encoding_format": "float"}).embed_documents(["hello world", "a"])
    assert w.posts[0][1]["encoding_format"] == "float"
    np.testing.assert_array_equal(vectors, np.array([row["embedding"] for row in w.replies[-1]["data"]], np.float32))


def test_rows_are_matched_by_index_not_by_position(wire: Play) -> None:
    with wire("vllm/embeddings-base64", VLLM_MINILM) as w:
        straight = Embedder(w.url).embed_documents(["hello world", "a"])
    with wire("vllm/embeddings-turned-round") as w:
        turned = Embedder(w.url).embed_documents(["hello world", "a"])
    assert [row["index"] for row in w.replies[-1]["data"]] == [1, 0]
    np.testing.assert_array_equal(turned, straight)


def test_the_base_url_may_end_in_v1(wire: Play) -> None:
    with wire("vllm/embeddings-base64", VLLM_MINILM) as w:
        Embedder(f"{w.url}/v1").embed_documents(["hello world", "a"])
    assert {request.path for request in w.sent} == {"/v1/models", "/version", "/v1/embeddings"}


def test_a_text_that_stands_twice_is_sent_once(wire: Play) -> None:
    with wire("vllm/duplicates", VLLM_MINILM) as w:
        vectors = Embedder(w.url).embed_documents(["a", "hello world", "a"])
    assert w.posts[0][1]["input"] == ["a", "hello world"]
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_a_query_gets_the_prompt_of_its_model_awaited_too(wire: Play) -> None:
    with wire("vllm/query-prompt", VLLM_QWEN3_EMBEDDING) as w:
        asyncio.run(Embedder(w.url, family="qwen3-embedding").aembed_queries([QUERY]))
    prompted = f"Instruct: {INSTRUCTION}\nQuery:{QUERY}"
    assert w.posts == [("/v1/embeddings", {"model": "qwen3-emb", "input": [prompted], "encoding_format": "base64"})]
    assert w.sent[-1].headers["content-type"] == "application/json"


def test_a_server_that_checks_widths_is_asked_for_them(wire: Play) -> None:
    with wire("vllm/dimensions", VLLM_QWEN3_EMBEDDING) as w:
        vectors = Embedder(w.url, family=None, dimensions=32).embed_documents([QUERY])
    assert w.posts[0][1] == {"model": "qwen3-emb", "input": [QUERY], "encoding_format": "base64", "dimensions": 32}
    assert vectors.shape == (1, 32)
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-6)


def test_a_known_model_is_cut_here(wire: Play) -> None:
    with wire("vllm/cut-here", VLLM_QWEN3_EMBEDDING) as w:
        vectors = Embedder(w.url, family="qwen3-embedding", dimensions=32).embed_documents([QUERY])
    assert "dimensions" not in w.posts[0][1]
    full = np.frombuffer(base64.b64decode(w.replies[-1]["data"][0]["embedding"]), "<f4")
    assert len(full) == 64
    np.testing.assert_allclose(vectors[0], full[:32] / np.linalg.norm(full[:32]), atol=1e-6)


def test_a_model_that_may_not_be_cut_is_refused_by_the_server(wire: Play) -> None:
    with wire("vllm/dimensions-refused", VLLM_MINILM) as w, pytest.raises(EndpointRejected) as caught:
        Embedder(w.url, family=None, dimensions=128).embed_documents(["hello world"])
    assert w.posts[0][1]["dimensions"] == 128
    assert caught.value.status == 400
    assert "does not support Matryoshka embeddings" in caught.value.detail
    assert "--hf-overrides '{\"is_matryoshka\": true}'" in str(caught.value)


def test_one_long_text_is_found_in_its_batch(wire: Play) -> None:
    with wire("vllm/too-long-in-a-batch", VLLM_MINILM) as w, pytest.raises(InputTooLong) as caught:
        Embedder(w.url).embed_documents(["fine", LONG, "also fine"])
    assert [body["input"] for _, body in w.posts] == [
        ["fine", LONG, "also fine"],
        ["fine"],
        [LONG, "also fine"],
        [LONG],
    ]
    assert all("truncate_prompt_tokens" not in body for _, body in w.posts)
    assert (caught.value.index, caught.value.limit) == (1, 256)
    assert caught.value.length is None  # "at least 257" is no length


def test_a_long_text_is_cut_by_the_server_if_the_user_wants_it(wire: Play) -> None:
    with wire("vllm/truncate", VLLM_MINILM) as w:
        vectors = Embedder(w.url, too_long="truncate").embed_documents(["fine", LONG])
    assert w.posts == [
        (
            "/v1/embeddings",
            {
                "model": "minilm",
                "input": ["fine", LONG],
                "encoding_format": "base64",
                "truncate_prompt_tokens": -1,
            },
        )
    ]
    assert w.replies[-1]["usage"]["prompt_tokens"] == 3 + 256
    assert vectors.shape == (2, 384)


def test_the_wording_of_0_11_tells_the_length(wire: Play) -> None:
    with wire("vllm-from-source/too-long-0.11") as w, pytest.raises(InputTooLong) as caught:
        Embedder(w.url).embed_documents([LONG])
    assert (caught.value.index, caught.value.length, caught.value.limit) == (0, 602, 256)


def test_numbers_that_arrive_as_null_are_no_vector(wire: Play) -> None:
    with wire("vllm-from-source/nan-0.33") as w, pytest.raises(MalformedReply, match="NaN, infinity or null"):
        Embedder(w.url, extra_body={"encoding_format": "float"}).embed_documents(["hello world"])


def test_a_model_that_is_not_served_is_named_before_anything_is_sent(wire: Play) -> None:
    with (
        wire("vllm/cards", VLLM_MINILM) as w,
        pytest.raises(ConfigurationError, match=r"does not serve 'nope'\. It serves 'minilm'"),
    ):
        Embedder(w.url, "nope").embed_documents(["hello world"])
    assert w.posts == []


def test_a_model_that_the_server_does_not_know(wire: Play) -> None:
    with (
        wire("vllm/wrong-model", VLLM_MINILM) as w,
        pytest.raises(EndpointRejected, match="Leave model= out") as caught,
    ):
        Embedder(w.url, extra_body={"model": "nope"}).embed_documents(["hello world"])
    assert w.posts[0][1]["model"] == "nope"
    assert (caught.value.status, caught.value.detail) == (404, "The model `nope` does not exist.")


def test_a_reranker_is_no_embedder(wire: Play) -> None:
    with wire("vllm/embeddings-of-a-reranker", VLLM_XLMR_RERANKER) as w, pytest.raises(EndpointRejected) as caught:
        Embedder(w.url, family=None, api_key=KEY).embed_documents(["hello world"])
    assert [path for path, _ in w.posts] == ["/v1/embeddings"]
    assert (caught.value.status, caught.value.detail) == (404, "Not Found")
    assert "not served as an embedding model: it is a reranker, or was launched to generate" in str(caught.value)


def test_a_model_that_generates_is_no_embedder(wire: Play) -> None:
    with (
        wire("vllm/embeddings-of-a-language-model", VLLM_QWEN3_GENERATES) as w,
        pytest.raises(EndpointRejected, match="--runner pooling"),
    ):
        Embedder(w.url, family=None).embed_documents(["hello world"])


def test_a_late_interaction_model_is_no_embedder(wire: Play) -> None:
    with (
        wire("vllm/embeddings-of-a-colbert", VLLM_COLBERT) as w,
        pytest.raises(EndpointRejected, match="does not support Embeddings API") as caught,
    ):
        Embedder(w.url, family=None).embed_documents(["hello world"])
    assert caught.value.status == 501


# --- reranking: pairs ------------------------------------------------------------------------------------------------

XLMR = "bge-reranker-xlmr"


def test_probabilities_are_what_the_server_returns(wire: Play) -> None:
    with wire("vllm/pairs", VLLM_XLMR_RERANKER) as w:
        scores = Reranker(w.url, family=XLMR, api_key=KEY).score(QUERY, DOCUMENTS)
    probe = {"model": "xlmr-rr", "text_1": "q", "text_2": ["d"]}
    assert w.posts == [
        ("/v1/score", probe),
        ("/v1/score", {**probe, "use_activation": False}),
        ("/v1/score", {"model": "xlmr-rr", "text_1": QUERY, "text_2": DOCUMENTS}),
    ]
    *_, default, bare, reply = w.replies
    assert default["data"][0]["score"] == pytest.approx(sigmoid(bare["data"][0]["score"]), abs=1e-6)
    assert scores.tolist() == [row["score"] for row in reply["data"]]


def test_the_key_goes_with_every_request(wire: Play) -> None:
    with wire("vllm/pairs", VLLM_XLMR_RERANKER) as w:
        Reranker(w.url, family=XLMR, api_key=KEY).score(QUERY, DOCUMENTS)
    assert {request.headers["authorization"] for request in w.sent} == {f"Bearer {KEY}"}


def test_logits_are_asked_for_without_the_activation(wire: Play) -> None:
    with wire("vllm/pairs-raw", VLLM_XLMR_RERANKER) as w:
        ranked = Reranker(w.url, family=XLMR, api_key=KEY, scores="raw").rank(QUERY, DOCUMENTS)
    assert w.posts[-1] == (
        "/v1/score",
        {"model": "xlmr-rr", "text_1": QUERY, "text_2": DOCUMENTS, "use_activation": False},
    )
    logits = [row["score"] for row in w.replies[-1]["data"]]
    assert [(one.index, one.score, one.score_kind) for one in ranked] == sorted(
        ((index, logit, "logit") for index, logit in enumerate(logits)), key=lambda row: -row[1]
    )


def test_blank_documents_come_last_without_being_sent(wire: Play) -> None:
    with wire("vllm/pairs-blank", VLLM_XLMR_RERANKER) as w:
        scores = Reranker(w.url, family=XLMR, api_key=KEY).score(QUERY, ["", DOCUMENTS[0], " \n"])
    assert w.posts[-1][1]["text_2"] == [DOCUMENTS[0]]
    assert (scores[0], scores[2]) == (0.0, 0.0)
    assert scores[1] > 0


def test_a_model_of_no_known_family_that_frames_its_pairs_is_a_cross_encoder(wire: Play) -> None:
    with wire("vllm/pairs-of-an-unknown-family", VLLM_XLMR_RERANKER) as w:
        scores = Reranker(w.url, api_key=KEY).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/v1/score", "/v1/score", "/v1/score", "/tokenize", "/v1/score"]
    assert w.posts[3] == ("/tokenize", {"model": "xlmr-rr", "prompt": "qd"})
    assert scores.tolist() == [row["score"] for row in w.replies[-1]["data"]]


def test_an_identity_head_returns_logits_and_they_become_probabilities_here(wire: Play) -> None:
    with wire("vllm/identity-head", VLLM_BERT_CE) as w:
        reranker = Reranker(w.url, family="ms-marco-minilm")
        scores = reranker.score(QUERY, DOCUMENTS)
        assert reranker.describe()["route"] == "pairs over /v1/score, logit whatever the activation"
    assert w.posts[2] == ("/v1/embeddings", {"model": "bert-ce", "input": ["q"], "encoding_format": "base64"})
    assert w.posts[3] == ("/v1/score", {"model": "bert-ce", "text_1": QUERY, "text_2": DOCUMENTS})
    logits = [row["score"] for row in w.replies[-1]["data"]]
    assert max(logits) > 1
    assert scores.tolist() == pytest.approx([sigmoid(logit) for logit in logits], abs=1e-12)


def test_one_long_document_is_found_in_its_batch(wire: Play) -> None:
    with wire("vllm/pairs-too-long", VLLM_XLMR_RERANKER) as w, pytest.raises(InputTooLong) as caught:
        Reranker(w.url, family=XLMR, api_key=KEY).score(QUERY, [DOCUMENTS[0], LONG])
    assert [body["text_2"] for _, body in w.posts[2:]] == [[DOCUMENTS[0], LONG], [DOCUMENTS[0]], [LONG]]
    assert (caught.value.index, caught.value.limit) == (1, 512)
    assert "the query with document 1" in str(caught.value)


def test_a_long_document_is_cut_by_the_servers_own_count(wire: Play) -> None:
    with wire("vllm/pairs-truncate", VLLM_XLMR_RERANKER) as w:
        scores = Reranker(w.url, family=XLMR, api_key=KEY, too_long="truncate").score(QUERY, [LONG])
    counted = [body["prompt"] for path, body in w.posts if path == "/tokenize"]
    assert counted[0] == f"{QUERY} {LONG}"
    path, body = w.posts[-1]
    (kept,) = body["text_2"]
    assert path == "/v1/score"
    assert LONG.startswith(kept)
    assert 0 < len(kept) < len(LONG)
    assert scores.tolist() == [w.replies[-1]["data"][0]["score"]]


def test_more_documents_than_the_queue_holds_are_halved(wire: Play, waits: list[float]) -> None:
    documents = [f"document {number}" for number in range(6)]
    with wire("vllm/queue-smaller-than-the-batch", VLLM_XLMR_RERANKER) as w:
        scores = Reranker(w.url, family=XLMR, api_key=KEY, max_retries=1).score(QUERY, documents)
    assert [body["text_2"] for _, body in w.posts[2:]] == [documents, documents, documents[:3], documents[3:]]
    assert len(waits) == 1
    assert scores.tolist() == [row["score"] for reply in w.replies[-2:] for row in reply["data"]]


def test_a_server_that_stays_busy_is_overloaded(wire: Play, waits: list[float]) -> None:
    with wire("vllm/overloaded") as w, pytest.raises(EndpointOverloaded, match="lower max_concurrency=") as caught:
        Reranker(w.url, family=XLMR, max_retries=2).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/v1/score"] * 3
    assert len(waits) == 2
    assert caught.value.status == 503
    assert "currently busy" in caught.value.detail


def test_a_wrong_key_is_named_but_not_shown(wire: Play) -> None:
    with (
        wire("vllm/wrong-key", VLLM_XLMR_RERANKER) as w,
        pytest.raises(EndpointRejected, match="pass api_key= as the server was started with") as caught,
    ):
        Reranker(w.url, family=XLMR, api_key="sk-of-somebody-else").score(QUERY, DOCUMENTS)
    assert w.replies == [{"error": "Unauthorized"}]  # a string, where other errors are objects
    assert (caught.value.status, caught.value.detail) == (401, "Unauthorized")
    assert "sk-of-somebody-else" not in str(caught.value)


# --- reranking: models that are no rerankers -------------------------------------------------------------------------


def test_an_embedder_by_name_is_refused_before_anything_is_sent(wire: Play) -> None:
    with wire("vllm/rerank-with-a-known-embedder", VLLM_MINILM) as w, pytest.raises(ConfigurationError) as caught:
        Reranker(w.url).score(QUERY, DOCUMENTS)
    assert "is an embedding model (sentence-transformers-classics), not a reranker" in str(caught.value)
    assert w.posts == []


def test_cosines_are_no_probabilities(wire: Play) -> None:
    with wire("vllm/cosines-refused", VLLM_MINILM) as w, pytest.raises(ConfigurationError, match="cosine scores"):
        Reranker(w.url, family=None).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/v1/score", "/v1/score", "/v1/embeddings"]


def test_cosines_are_returned_to_who_asks_for_them(wire: Play) -> None:
    with wire("vllm/cosines", VLLM_MINILM) as w:
        ranked = Reranker(w.url, family=None, scores="raw").rank(QUERY, DOCUMENTS, top_n=2)
    assert "use_activation" not in w.posts[-1][1]
    cosines = [row["score"] for row in w.replies[-1]["data"]]
    assert [(one.index, one.score, one.score_kind) for one in ranked] == [
        (0, cosines[0], "cosine"),
        (1, cosines[1], "cosine"),
    ]


def test_max_sims_are_no_probabilities(wire: Play) -> None:
    with wire("vllm/maxsims-refused", VLLM_COLBERT) as w, pytest.raises(ConfigurationError, match="maxsim scores"):
        Reranker(w.url, family=None).score(QUERY, DOCUMENTS)


def test_max_sims_are_returned_to_who_asks_for_them(wire: Play) -> None:
    with wire("vllm/maxsims", VLLM_COLBERT) as w:
        ranked = Reranker(w.url, family=None, scores="raw").rank(QUERY, DOCUMENTS)
    assert {one.score_kind for one in ranked} == {"maxsim"}
    assert max(one.score for one in ranked) > 1
    assert {one.index: one.score for one in ranked} == {row["index"]: row["score"] for row in w.replies[-1]["data"]}


# --- reranking: Qwen3-Reranker ---------------------------------------------------------------------------------------

QWEN3 = "qwen3-reranker"


def test_the_cards_prompt_goes_past_any_template(wire: Play) -> None:
    with wire("vllm/qwen3-reranker", VLLM_QWEN3_RERANKER) as w:
        scores = Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    probe = {"model": "qwen3-reranker", "input": [card_prompt("q", "d")]}
    assert w.posts == [
        ("/classify", probe),
        ("/classify", {**probe, "use_activation": False}),
        ("/classify", {"model": "qwen3-reranker", "input": [card_prompt(QUERY, text) for text in DOCUMENTS]}),
    ]
    assert scores.tolist() == [row["probs"][0] for row in w.replies[-1]["data"]]


def test_an_instruction_of_ones_own(wire: Play) -> None:
    instruction = "Given a question of a customer, retrieve the passage that answers it"
    with wire("vllm/qwen3-reranker-instruction", VLLM_QWEN3_RERANKER) as w:
        Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS[:1], instruction=instruction)
    assert w.posts[-1][1]["input"] == [card_prompt(QUERY, DOCUMENTS[0], instruction)]


def test_raw_scores_of_an_llm_reranker_are_logits(wire: Play) -> None:
    with wire("vllm/qwen3-reranker-raw", VLLM_QWEN3_RERANKER) as w:
        scores = asyncio.run(Reranker(w.url, family=QWEN3, scores="raw").ascore(QUERY, DOCUMENTS))
    assert w.posts[-1][1]["use_activation"] is False
    assert scores.tolist() == [row["probs"][0] for row in w.replies[-1]["data"]]


def test_only_the_document_is_cut_never_the_prompt(wire: Play) -> None:
    with wire("vllm/qwen3-reranker-truncate", VLLM_QWEN3_RERANKER) as w:
        Reranker(w.url, family=QWEN3, too_long="truncate").score(QUERY, [LONG])
    (prompt,) = w.posts[-1][1]["input"]
    before, after = card_prompt(QUERY, "\0").split("\0")
    kept = prompt.removeprefix(before).removesuffix(after)
    assert prompt == before + kept + after
    assert LONG.startswith(kept)
    assert w.replies[-1]["usage"]["prompt_tokens"] <= 512


def test_an_llm_reranker_without_its_prompt_is_warned_of(wire: Play) -> None:
    with (
        wire("vllm/qwen3-reranker-without-family", VLLM_QWEN3_RERANKER) as w,
        pytest.warns(RagpairWarning, match="close to random"),
    ):
        Reranker(w.url).score(QUERY, DOCUMENTS)
    assert w.posts[-1] == ("/v1/score", {"model": "qwen3-reranker", "text_1": QUERY, "text_2": DOCUMENTS})


def test_a_launch_with_the_architecture_alone_is_refused(wire: Play) -> None:
    with wire("vllm/qwen3-two-classes", VLLM_QWEN3_TWO_CLASSES) as w, pytest.raises(ConfigurationError) as caught:
        Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert w.replies[-1]["data"][0]["num_classes"] == 2
    assert "classifies into 2 classes with an uninitialised head" in str(caught.value)
    assert "vllm serve Qwen/Qwen3-Reranker-0.6B --runner pooling --hf-overrides" in str(caught.value)


def test_a_launch_with_num_labels_is_refused(wire: Play) -> None:
    with wire("vllm/qwen3-random-head", VLLM_QWEN3_RANDOM_HEAD) as w, pytest.raises(ConfigurationError) as caught:
        Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert abs(w.replies[-1]["data"][0]["probs"][0]) > 1e3
    assert "launched with num_labels but without classifier_from_token" in str(caught.value)
    assert "--runner pooling --hf-overrides" in str(caught.value)


def test_a_launch_that_generates_is_refused(wire: Play) -> None:
    with wire("vllm/qwen3-generates", VLLM_QWEN3_GENERATES) as w, pytest.raises(EndpointRejected) as caught:
        Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/classify", "/v1/score"]
    assert caught.value.status == 404
    assert "the launch lacks classifier_from_token" in str(caught.value)


def test_an_engine_that_died_is_asked_once_more(wire: Play, waits: list[float]) -> None:
    with wire("vllm/engine-dead") as w, pytest.raises(EndpointRejected, match="its log tells why") as caught:
        Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert [path for path, _ in w.posts] == ["/classify", "/classify"]
    assert len(waits) == 1
    assert caught.value.status == 500
    assert "EngineCore encountered an issue" in caught.value.detail
