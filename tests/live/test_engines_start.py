"""Every server of the table starts, and answers as its engine is known to: raw HTTP, without ragpair.

Where a server is meant to be right, its numbers are those of transformers on the same weights.
"""

import math
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from .launches import on
from .models import model
from .reference import reference
from .servers import Server

TEXTS = ["What is the capital of France?", "Paris is the capital of France.", "a"]
QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "The capital of China is Beijing.", "The quick brown fox jumps over the lazy dog."]
PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
PROMPTS = [PROMPT.format(query=QUERY, document=document) for document in DOCUMENTS]


@pytest.fixture
def http(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.base_url, timeout=120, trust_env=False) as client:
        yield client


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    reply = http.post(path, json=body)
    assert reply.status_code == httpx.codes.OK, reply.text
    return reply.json()


def embed(http: httpx.Client, served: Server, texts: list[str]) -> np.ndarray:
    data = post(http, "/v1/embeddings", model=served.model, input=texts)["data"]
    assert [row["index"] for row in data] == list(range(len(texts)))
    return np.array([row["embedding"] for row in data])


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def pair_logits(name: str) -> list[float]:
    return reference("pairs", model(name), [(QUERY, document) for document in DOCUMENTS])


def yes_no_probabilities() -> list[float]:
    return [sigmoid(odds) for odds in reference("yes-no", model("qwen3-rr-orig"), PROMPTS)]


@on("vllm-minilm", "llamacpp-minilm", "sglang-minilm")
def test_minilm_embeds(served: Server, http: httpx.Client) -> None:
    pooling = "embed-cls" if served.engine == "sglang" else "embed-mean"  # SGLang pools every BERT by CLS
    np.testing.assert_allclose(
        embed(http, served, TEXTS),
        reference(pooling, model("minilm"), TEXTS),
        atol=1e-3 if served.engine == "llamacpp" else 1e-5,
    )


@on("vllm-qwen3-emb", "sglang-qwen3-emb")
def test_qwen3_embeds_by_the_last_token(served: Server, http: httpx.Client) -> None:
    np.testing.assert_allclose(
        embed(http, served, TEXTS), reference("embed-last", model("qwen3-emb"), TEXTS), atol=1e-5
    )
    cut = post(http, "/v1/embeddings", model=served.model, input="a", dimensions=32)["data"][0]["embedding"]
    assert len(cut) == 32


@on("vllm-xlmr-rr")
def test_vllm_scores_a_cross_encoder_by_probability(served: Server, http: httpx.Client) -> None:
    data = post(http, "/v1/score", model=served.model, text_1=QUERY, text_2=DOCUMENTS)["data"]
    expected = [sigmoid(logit) for logit in pair_logits("xlmr-rr")]
    assert [row["score"] for row in data] == pytest.approx(expected, abs=1e-5)


@on("vllm-bert-ce")
def test_vllm_gives_raw_logits_where_the_config_says_identity(served: Server, http: httpx.Client) -> None:
    data = post(http, "/v1/score", model=served.model, text_1=QUERY, text_2=DOCUMENTS)["data"]
    assert [row["score"] for row in data] == pytest.approx(pair_logits("bert-ce"), abs=1e-4)


@on("vllm-qwen3-rr", "vllm-qwen3-rr-seqcls")
def test_vllm_classifies_whole_qwen3_prompts(served: Server, http: httpx.Client) -> None:
    data = post(http, "/classify", model=served.model, input=PROMPTS)["data"]
    assert [row["probs"][0] for row in data] == pytest.approx(yes_no_probabilities(), abs=1e-5)
    one = post(http, "/classify", model=served.model, input=PROMPTS[0])["data"]
    assert one[0]["num_classes"] == 1


@on("vllm-qwen3-rr-seed")
def test_vllm_misses_rerank_routes_after_the_popular_command(served: Server, http: httpx.Client) -> None:
    assert http.get("/health").is_success
    reply = http.post("/v1/score", json={"model": served.model, "text_1": QUERY, "text_2": DOCUMENTS})
    assert reply.status_code == httpx.codes.NOT_FOUND
    assert reply.json() == {"detail": "Not Found"}
    assert post(http, "/classify", model=served.model, input="a")["data"][0]["num_classes"] == 2


@on("sglang-xlmr-rr")
def test_sglang_reranks_by_raw_logits(served: Server, http: httpx.Client) -> None:
    rows = post(http, "/v1/rerank", query=QUERY, documents=DOCUMENTS, return_documents=False)
    scores = [row["score"] for row in sorted(rows, key=lambda row: row["index"])]
    assert scores == pytest.approx(pair_logits("xlmr-rr"), abs=1e-4)


@on("sglang-qwen3-rr")
def test_sglang_scores_whole_qwen3_prompts(served: Server, http: httpx.Client) -> None:
    labels = [post(http, "/v1/tokenize", prompt=word, add_special_tokens=False)["tokens"][0] for word in ("yes", "no")]
    rows = post(http, "/v1/score", query="", items=PROMPTS, label_token_ids=labels, apply_softmax=True)["scores"]
    assert [row[0] for row in rows] == pytest.approx(yes_no_probabilities(), abs=1e-5)
    reply = http.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS})
    assert reply.status_code == httpx.codes.BAD_REQUEST  # no template in the tokenizer says that it is a reranker


@on("llamacpp-xlmr-rr")
def test_llamacpp_reranks_by_raw_logits(served: Server, http: httpx.Client) -> None:
    assert rerank(http) == pytest.approx(pair_logits("xlmr-rr"), abs=1e-2)


@on("llamacpp-qwen3-rr")
def test_llamacpp_reranks_qwen3_by_probability(served: Server, http: httpx.Client) -> None:
    assert rerank(http) == pytest.approx(yes_no_probabilities(), abs=1e-3)


def rerank(http: httpx.Client) -> list[float]:
    rows = post(http, "/v1/rerank", query=QUERY, documents=DOCUMENTS)["results"]
    return [row["relevance_score"] for row in sorted(rows, key=lambda row: row["index"])]
