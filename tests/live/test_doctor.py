"""`ragpair doctor` on real engines: each launch that can be made here, right or wrong, is called what it is.

Most models here have random weights, and a doctor who found meaning in them would be none: for those, that is the one
problem that is found. `vllm-qwen3-rr-fitted` and MiniLM know something.
"""

import re

import pytest

from ragpair.doctor import Ask, Checkup, Finding, diagnose, examine

from .launches import on
from .servers import Server

QWEN3 = "qwen3-reranker"
MEANINGLESS = "does not tell relevant from irrelevant"


def problems(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity == "problem"]


def look(served: Server, ask: Ask) -> tuple[Checkup, list[Finding]]:
    checkup = examine(served.base_url, ask)
    assert checkup.engine == served.engine
    return checkup, diagnose(checkup)


@on("vllm-qwen3-rr-seed")
@pytest.mark.parametrize("family", [QWEN3, "auto"])
def test_the_launch_that_guides_copy(served: Server, family: str) -> None:
    checkup, found = look(served, Ask(family=family))
    (problem,) = problems(found)
    assert "classifier_from_token" in problem.what or "name the architecture only" in problem.what
    assert "looks healthy" in problem.why
    model = re.escape(str(served.model_dir)) if family == QWEN3 else "Qwen/Qwen3-Reranker-0.6B"
    assert re.match(rf"vllm serve {model} .*\"classifier_from_token\":\[\"no\",\"yes\"\]", problem.cure)
    assert checkup.version


@on("vllm-qwen3-rr-numlabels1")
def test_a_head_of_uninitialised_memory(served: Server) -> None:
    _, found = look(served, Ask(family=QWEN3))
    problem = problems(found)[0]
    # What was in memory may pass for a head; that it knows nothing is seen all the same.
    assert "uninitialised" in problem.what or MEANINGLESS in problem.what


@on("vllm-qwen3-rr-fitted")
def test_a_reranker_that_is_right(served: Server) -> None:
    checkup, found = look(served, Ask(family=QWEN3))
    assert problems(found) == []
    assert checkup.reranking is not None
    assert (checkup.reranking.score_kind, checkup.reranking.template) == ("probability", "none")
    assert {name: (one.right, one.of) for name, one in checkup.separates.items()} == {"en": (6, 6), "zh": (6, 6)}
    assert any("no template" in finding.what for finding in found)


@on("vllm-qwen3-rr", "sglang-qwen3-rr")
def test_the_right_launch_of_a_model_that_knows_nothing(served: Server) -> None:
    checkup, found = look(served, Ask(family=QWEN3))
    assert [MEANINGLESS in problem.what for problem in problems(found)] == [True]
    assert checkup.reranking is not None
    assert checkup.reranking.template == "none"


@on("vllm-qwen3-rr-template", "sglang-qwen3-rr-template")
def test_a_template_as_the_card_wants_it(served: Server) -> None:
    checkup, _ = look(served, Ask(family=QWEN3))
    assert checkup.reranking is not None
    assert checkup.reranking.template == "card"


@on("vllm-minilm", "llamacpp-minilm")
def test_an_embedder_that_is_right(served: Server) -> None:
    checkup, found = look(served, Ask(family="sentence-transformers/all-MiniLM-L6-v2"))
    assert problems(found) == []
    assert checkup.embedding is not None
    assert (checkup.embedding.width, checkup.task) == (384, "embed")
    assert checkup.separates["en"].right == 6
    assert checkup.version


@on("vllm-xlmr-rr", "llamacpp-xlmr-rr")
def test_a_cross_encoder_of_no_known_name_is_found_out(served: Server) -> None:
    checkup, found = look(served, Ask())
    assert checkup.task == "rerank"
    assert [MEANINGLESS in problem.what for problem in problems(found)] == [True]
    assert not any("texts are sent as they are" in finding.what for finding in found)


@on("llamacpp-xlmr-rr")
def test_a_reranker_that_is_taken_for_an_embedder(served: Server) -> None:
    _, found = look(served, Ask(expect="embed"))
    assert "vectors would be garbage" in problems(found)[0].what


@on("sglang-minilm")
def test_vectors_that_sglang_pools_wrongly(served: Server) -> None:
    checkup, found = look(served, Ask(family="sentence-transformers/all-MiniLM-L6-v2"))
    (problem,) = problems(found)
    assert "pools" in problem.what
    assert problem.cure.startswith("vllm serve ")
    assert checkup.model_pooling == "mean"


@on("sglang-xlmr-rr-defaults")
def test_sglang_without_the_encoder_flags_survives_the_doctor(served: Server) -> None:
    for _ in range(2):
        _, found = look(served, Ask(expect="rerank"))
        (problem,) = problems(found)
        assert "radix cache on" in problem.what
        assert "--disable-radix-cache --chunked-prefill-size -1" in problem.cure


@on("sglang-qwen3-rr-embedding")
def test_qwen3_reranker_as_an_embedder(served: Server) -> None:
    _, found = look(served, Ask(family=QWEN3))
    (problem,) = problems(found)
    assert "meaningless numbers" in problem.what
    assert problem.cure.endswith("--disable-radix-cache")
