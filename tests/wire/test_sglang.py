"""What is sent to SGLang, and what is made of its replies."""

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
    InvalidInput,
    RagpairWarning,
    Reranker,
)

from .cards import card_prompt
from .conftest import Play
from .recordings import NOWHERE
from .servers import (
    KEY,
    SGLANG_MINILM,
    SGLANG_QWEN3_EMBEDDING,
    SGLANG_QWEN3_RERANKER,
    SGLANG_XLMR_RERANKER,
)

QUERY = "what is a panda?"
DOCUMENTS = [
    "The giant panda is a bear species endemic to China.",
    "hi",
    "Paris is the capital of France.",
    "pandas eat bamboo",
]
LONG = "hello " * 700


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


# --- embedding -------------------------------------------------------------------------------------------------------


def test_texts_go_out_as_strings_and_vectors_come_back_as_base64(wire: Play) -> None:
    with wire("sglang/embeddings-base64", SGLANG_QWEN3_EMBEDDING) as w:
        vectors = Embedder(w.url, family="qwen3-embedding").embed_documents(["hello world", "panda"])
    assert w.posts == [
        ("/v1/embeddings", {"model": "qwen3-emb", "input": ["hello world", "panda"], "encoding_format": "base64"})
    ]
    assert w.sent[-1].headers["content-type"] == "application/json"
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in w.replies[-1]["data"]]
    np.testing.assert_array_equal(vectors, rows)


def test_floats_are_what_versions_before_0_5_17_return(wire: Play) -> None:
    with wire("sglang/embeddings-float", SGLANG_QWEN3_EMBEDDING) as w:
        embedder = Embedder(w.url, family="qwen3-embedding", extra_body={"encoding_format": "float"})
        vectors = asyncio.run(embedder.aembed_documents(["hello world", "panda"]))
    np.testing.assert_array_equal(vectors, np.array([row["embedding"] for row in w.replies[-1]["data"]], np.float32))


def test_what_may_tell_the_key_is_never_asked(wire: Play) -> None:
    with wire("sglang/key", SGLANG_MINILM) as w:
        Embedder(w.url, family=None, api_key=KEY).embed_documents(["hello world"])
    assert w.gets == ["/v1/models", "/v1/models", "/model_info", "/v1/loads"]  # /server_info shows it in clear text
    assert {request.headers["authorization"] for request in w.sent} == {f"Bearer {KEY}"}


def test_a_model_that_sglang_pools_wrongly_is_refused(wire: Play) -> None:
    with (
        wire("sglang/pooled-wrongly", SGLANG_MINILM) as w,
        pytest.raises(ConfigurationError, match="pools 'minilm' by 'cls', but its authors trained it for 'mean'"),
    ):
        Embedder(w.url, api_key=KEY).embed_documents(["hello world"])
    assert w.posts == []


def test_an_encoder_with_the_radix_cache_on_is_refused(wire: Play) -> None:
    with (
        wire("sglang/radix-cache") as w,
        pytest.raises(ConfigurationError, match="--disable-radix-cache --chunked-prefill-size -1"),
    ):
        Embedder(w.url, family=None).embed_documents(["hello world"])
    assert w.posts == []


def test_a_server_that_knows_its_widths_is_asked_for_them(wire: Play) -> None:
    with wire("sglang/dimensions", SGLANG_QWEN3_EMBEDDING) as w:
        vectors = Embedder(w.url, family=None, dimensions=32).embed_documents(["hello world"])
    assert w.posts[0][1] == {
        "model": "qwen3-emb",
        "input": ["hello world"],
        "encoding_format": "base64",
        "dimensions": 32,
    }
    assert vectors.shape == (1, 32)


def test_a_width_that_was_not_trained_is_refused_by_the_server(wire: Play) -> None:
    with wire("sglang/dimensions-refused", SGLANG_QWEN3_EMBEDDING) as w, pytest.raises(EndpointRejected) as caught:
        Embedder(w.url, family=None, dimensions=48).embed_documents(["hello world"])
    assert "only supports [16, 32, 64] matryoshka dimensions" in caught.value.detail


def test_a_flat_error_is_read(wire: Play) -> None:
    with wire("sglang/flat-error", SGLANG_MINILM) as w, pytest.raises(EndpointRejected) as caught:
        Embedder(w.url, family=None, api_key=KEY, dimensions=128).embed_documents(["hello world"])
    assert "error" not in w.replies[-1]  # the message stands at the top, where others have it in `error`
    assert caught.value.status == 400
    assert caught.value.detail.startswith("Model 'models/all-MiniLM-L6-v2' does not support matryoshka")
    assert "--json-model-override-args '{\"is_matryoshka\": true}'" in str(caught.value)


def test_a_blank_text_that_would_cost_its_batch_is_never_sent() -> None:
    with pytest.raises(InvalidInput, match="document 1 is blank"):
        Embedder(NOWHERE, engine="sglang").embed_documents(["ok", ""])


def test_one_long_text_is_found_in_its_batch(wire: Play) -> None:
    with wire("sglang/too-long-in-a-batch", SGLANG_MINILM) as w, pytest.raises(InputTooLong) as caught:
        Embedder(w.url, family=None, api_key=KEY).embed_documents(["short", LONG])
    assert [body["input"] for _, body in w.posts] == [["short", LONG], ["short"], [LONG]]
    assert (caught.value.index, caught.value.length, caught.value.limit) == (1, 702, 511)  # of "512", 511 fit


def test_a_long_text_is_cut_by_the_servers_own_count(wire: Play) -> None:
    with wire("sglang/truncate", SGLANG_MINILM) as w:
        Embedder(w.url, family=None, api_key=KEY, too_long="truncate").embed_documents([LONG])
    assert w.posts[1] == ("/v1/tokenize", {"prompt": LONG})
    (kept,) = w.posts[-1][1]["input"]
    assert LONG.startswith(kept)
    assert w.replies[-1]["usage"]["prompt_tokens"] <= 511


def test_a_wrong_key_is_named_but_not_shown(wire: Play) -> None:
    with (
        wire("sglang/wrong-key", SGLANG_MINILM) as w,
        pytest.raises(EndpointRejected, match="pass api_key= as the server was started with") as caught,
    ):
        Embedder(w.url, api_key="sk-of-somebody-else").embed_documents(["hello world"])
    assert (caught.value.status, caught.value.detail) == (401, "Unauthorized")
    assert "sk-of-somebody-else" not in str(caught.value)


def test_a_full_queue_is_overload(wire: Play, waits: list[float]) -> None:
    with wire("sglang/queue-full") as w, pytest.raises(EndpointOverloaded, match="The request queue is full") as caught:
        Embedder(w.url, family=None, max_retries=1).embed_documents(["hello world"])
    assert len(w.posts) == 2
    assert len(waits) == 1
    assert caught.value.status == 503


def test_a_full_queue_halves_the_batch(wire: Play, waits: list[float]) -> None:
    with wire("sglang/queue-full-for-two") as w:
        vectors = Embedder(w.url, family=None, max_retries=0).embed_documents(["hello world", "panda"])
    assert [body["input"] for _, body in w.posts] == [["hello world", "panda"], ["hello world"], ["panda"]]
    assert vectors.shape == (2, 64)


def test_a_reranker_is_no_embedder(wire: Play) -> None:
    with (
        wire("sglang/reranker-as-embedder", SGLANG_XLMR_RERANKER) as w,
        pytest.raises(ConfigurationError, match=r"as a reranker \(XLMRobertaForSequenceClassification\)"),
    ):
        Embedder(w.url).embed_documents(["hello world"])
    assert w.posts == []


def test_a_model_that_generates_is_no_embedder(wire: Play) -> None:
    with (
        wire("sglang/language-model-as-embedder", SGLANG_QWEN3_RERANKER) as w,
        pytest.raises(ConfigurationError, match="launch it with --is-embedding"),
    ):
        Embedder(w.url).embed_documents(["hello world"])
    assert w.posts == []


# --- reranking: pairs ------------------------------------------------------------------------------------------------

XLMR = "bge-reranker-xlmr"


def test_rows_come_best_first_and_go_back_to_the_order_of_the_documents(wire: Play) -> None:
    with wire("sglang/pairs", SGLANG_XLMR_RERANKER) as w:
        scores = Reranker(w.url, family=XLMR).score(QUERY, DOCUMENTS)
    assert w.posts == [("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "return_documents": False})]
    rows = w.replies[-1]
    assert [row["index"] for row in rows] != [0, 1, 2, 3]
    assert all("document" not in row for row in rows)
    logits = {row["index"]: row["score"] for row in rows}
    assert scores.tolist() == pytest.approx([sigmoid(logits[index]) for index in range(4)], abs=1e-12)


def test_raw_scores_are_the_servers_logits_awaited_too(wire: Play) -> None:
    with wire("sglang/pairs-raw", SGLANG_XLMR_RERANKER) as w:
        ranked = asyncio.run(Reranker(w.url, family=XLMR, scores="raw").arank(QUERY, DOCUMENTS))
    assert [(one.index, one.score) for one in ranked] == [(row["index"], row["score"]) for row in w.replies[-1]]
    assert {one.score_kind for one in ranked} == {"logit"}


def test_a_cross_encoder_without_a_family_is_warned_of(wire: Play) -> None:
    with (
        wire("sglang/pairs-of-an-unknown-family", SGLANG_XLMR_RERANKER) as w,
        pytest.warns(RagpairWarning, match="'xlmr-rr' is not a known reranker"),
    ):
        Reranker(w.url).score(QUERY, DOCUMENTS)


def test_one_long_document_is_found_in_its_batch(wire: Play) -> None:
    with wire("sglang/pairs-too-long", SGLANG_XLMR_RERANKER) as w, pytest.raises(InputTooLong) as caught:
        Reranker(w.url, family=XLMR).score(QUERY, ["short", LONG])
    # A pair of 513 tokens is not refused but kills the server, so what may be that long is counted and never sent.
    assert {path for path, _ in w.posts} == {"/v1/tokenize", "/v1/rerank"}
    assert [body["documents"] for path, body in w.posts if path == "/v1/rerank"] == [["short"]]
    assert (caught.value.index, caught.value.limit) == (1, 512)
    assert "the server would die of it" in str(caught.value)


def test_an_embedder_is_no_reranker(wire: Play) -> None:
    with (
        wire("sglang/embedder-as-reranker", SGLANG_QWEN3_EMBEDDING) as w,
        pytest.raises(ConfigurationError, match="200 and meaningless numbers"),
    ):
        Reranker(w.url, family=None).score(QUERY, DOCUMENTS)
    assert w.posts == []


# --- reranking: Qwen3-Reranker ---------------------------------------------------------------------------------------

QWEN3 = "qwen3-reranker"


def test_the_cards_prompt_goes_past_any_template(wire: Play) -> None:
    with wire("sglang/qwen3-reranker", SGLANG_QWEN3_RERANKER) as w:
        scores = Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert w.posts == [
        ("/v1/tokenize", {"prompt": "yes", "add_special_tokens": False}),
        ("/v1/tokenize", {"prompt": "no", "add_special_tokens": False}),
        (
            "/v1/score",
            {
                "model": "qwen3-reranker",
                "query": "",
                "items": [card_prompt(QUERY, text) for text in DOCUMENTS],
                "label_token_ids": [9693, 2152],  # yes and no in Qwen's vocabulary
                "apply_softmax": True,
            },
        ),
    ]
    rows = w.replies[-1]["scores"]
    assert [sum(row) for row in rows] == pytest.approx([1.0] * 4)
    assert scores.tolist() == [row[0] for row in rows]


def test_an_instruction_of_ones_own(wire: Play) -> None:
    instruction = "Given a question of a customer, retrieve the passage that answers it"
    with wire("sglang/qwen3-reranker-instruction", SGLANG_QWEN3_RERANKER) as w:
        Reranker(w.url, family=QWEN3, instruction=instruction).score(QUERY, DOCUMENTS[:1])
    assert w.posts[-1][1]["items"] == [card_prompt(QUERY, DOCUMENTS[0], instruction)]


def test_a_language_model_of_no_known_family_is_no_reranker(wire: Play) -> None:
    with (
        wire("sglang/language-model-as-reranker", SGLANG_QWEN3_RERANKER) as w,
        pytest.raises(ConfigurationError, match="name its family, for instance family='qwen3-reranker'"),
    ):
        Reranker(w.url, family=None).score(QUERY, DOCUMENTS)
    # A model that decides is asked there. This one answers too, but hardly ever with yes or no.
    assert [path for path, _ in w.posts] == ["/v1/systemone"]
    assert w.replies[-1]["answers"]["relevant"]["x_label_mass"] < 0.01


def test_a_converted_qwen3_gets_whole_prompts_and_a_caution(wire: Play) -> None:
    with (
        wire("sglang/qwen3-converted") as w,
        pytest.warns(RagpairWarning, match="off by a constant"),
    ):
        scores = Reranker(w.url, family=QWEN3).score(QUERY, DOCUMENTS)
    assert w.posts == [
        (
            "/v1/score",
            {"model": "qwen3-seqcls-tiny", "query": "", "items": [card_prompt(QUERY, text) for text in DOCUMENTS]},
        )
    ]
    logits = [row[0] for row in w.replies[-1]["scores"]]
    assert scores.tolist() == pytest.approx([sigmoid(logit) for logit in logits], abs=1e-12)
