"""Servers that were launched wrongly, or differently: recognised from outside, or scored rightly all the same."""

import httpx
import numpy as np
import pytest

from ragpair import ConfigurationError, RagpairWarning, Reranker

from .launches import on
from .models import model
from .reference import reference
from .servers import Server
from .test_contract import CARD_INSTRUCTION, CARD_RERANKER, DOCUMENTS, QUERY, sigmoid

FAMILY = "qwen3-reranker"


def cards_scores() -> np.ndarray:
    prompts = [CARD_RERANKER.format(instruction=CARD_INSTRUCTION, query=QUERY, document=text) for text in DOCUMENTS]
    return sigmoid(reference("yes-no", model("qwen3-rr-orig"), prompts))


@on("vllm-qwen3-rr-seed")
@pytest.mark.parametrize("family", [FAMILY, None])
def test_heads_that_nobody_trained_are_refused_with_the_command_that_mends_them(
    served: Server, family: str | None
) -> None:
    with pytest.raises(Exception, match="classifier_from_token") as caught:
        Reranker(served.base_url, family=family).score(QUERY, DOCUMENTS)
    assert "vllm serve" in str(caught.value)


@on("vllm-qwen3-rr-numlabels1")
def test_an_uninitialised_head_is_refused_by_its_logits(served: Server) -> None:
    request = {"model": served.model, "input": ["x"], "use_activation": False}
    reply = httpx.post(f"{served.base_url}/classify", json=request, timeout=120, trust_env=False)
    logit = reply.json()["data"][0]["probs"][0]
    if logit is None or 0 < abs(logit) < 1e3:
        pytest.skip(f"what was in memory passes for a head this time (logit {logit})")
    with pytest.raises(ConfigurationError, match=r"uninitialised .*vllm serve"):
        Reranker(served.base_url, family=FAMILY).score(QUERY, DOCUMENTS)


@on("vllm-qwen3-rr")
def test_a_reranker_of_no_known_family_without_a_template_is_warned_of(served: Server) -> None:
    with pytest.warns(RagpairWarning, match="close to random"):
        Reranker(served.base_url).score(QUERY, DOCUMENTS)


@on("vllm-qwen3-rr-template", "sglang-qwen3-rr-template")
def test_a_template_on_the_server_is_never_doubled(served: Server) -> None:
    scores = Reranker(served.base_url, family=FAMILY).score(QUERY, DOCUMENTS)
    np.testing.assert_allclose(scores, cards_scores(), atol=1e-3)


@on("vllm-qwen3-rr-template", "sglang-qwen3-rr-template")
def test_our_templates_give_other_clients_the_cards_scores(served: Server) -> None:
    path = "/v1/score" if served.engine == "vllm" else "/v1/rerank"
    body = (
        {"text_1": QUERY, "text_2": DOCUMENTS} if served.engine == "vllm" else {"query": QUERY, "documents": DOCUMENTS}
    )
    reply = httpx.post(served.base_url + path, json={"model": served.model, **body}, timeout=120, trust_env=False)
    rows = reply.json()["data"] if served.engine == "vllm" else reply.json()
    scores = [row["score"] for row in sorted(rows, key=lambda row: row["index"])]
    np.testing.assert_allclose(scores, cards_scores(), atol=1e-3)


@on("sglang-xlmr-rr-defaults")
def test_sglang_without_the_encoder_flags_is_refused_before_it_dies(served: Server) -> None:
    with pytest.raises(ConfigurationError, match="--disable-radix-cache"):
        Reranker(served.base_url, family=None).score(QUERY, DOCUMENTS)
    assert httpx.get(f"{served.base_url}/v1/models", trust_env=False).status_code == httpx.codes.OK


@on("sglang-qwen3-rr-embedding")
def test_qwen3_reranker_as_an_embedder_on_sglang_is_refused(served: Server) -> None:
    with pytest.raises(ConfigurationError, match="without --is-embedding"):
        Reranker(served.base_url, family=FAMILY).score(QUERY, DOCUMENTS)
