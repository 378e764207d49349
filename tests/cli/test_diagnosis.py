"""What facts mean: the cases that no other test brings about."""

import numpy as np
import pytest

from ragpair import EndpointRejected
from ragpair.doctor import Checkup, Finding, diagnose
from ragpair.doctor.values import Embedding, Failure, Reranking, Separation

UNIT = np.eye(3, 8, dtype=np.float32)[[0, 1, 0]]


def checkup(**facts: object) -> Checkup:
    return Checkup(**{"url": "http://h", "engine": "vllm", "model": "m", "task": "embed", **facts})


def test_nothing_wrong_is_nothing_said() -> None:
    right = {"en": Separation(6, 6), "zh": Separation(5, 6)}
    assert diagnose(checkup(embedding=Embedding(UNIT), separates=right, limit=512, version="0.32.0")) == []


@pytest.mark.parametrize(
    ("caution", "severity"),
    [
        ("'m' joins query and document without a prompt: its scores are close to random.", "problem"),
        (
            "h runs an encoder with chunked prefill: the first long batch kills the server. Launch it with -x.",
            "problem",
        ),
        ("'m' is not in the catalogue, so texts are sent as they are.", "warning"),
    ],
)
def test_what_the_core_warns_of(caution: str, severity: str) -> None:
    assert diagnose(checkup(cautions=(caution,))) == [Finding(severity, caution)]


@pytest.mark.parametrize(
    ("en", "zh", "severity"),
    [(2, 2, "problem"), (4, 4, "problem"), (6, 2, "note"), (2, 6, "note"), (5, 5, None), (6, 6, None)],
)
def test_one_language_is_enough(en: int, zh: int, severity: str | None) -> None:
    found = diagnose(checkup(separates={"en": Separation(en, 6), "zh": Separation(zh, 6)}))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_another_width_than_the_models_is_a_warning() -> None:
    (found,) = diagnose(checkup(embedding=Embedding(UNIT), repo="a/b", model_width=1024))
    assert (found.severity, found.what) == ("warning", "Vectors have 8 numbers; those of a/b have 1024.")


def test_pooling_that_nobody_tells_is_not_judged() -> None:
    assert diagnose(checkup(embedding=Embedding(UNIT), model_pooling="mean")) == []
    assert diagnose(checkup(embedding=Embedding(UNIT, pooling="last"), model_pooling="other")) == []


def test_the_worst_comes_first() -> None:
    failure = Failure(EndpointRejected("it answered 500. Its log tells why.", status=500), "embed")
    facts = {"failures": (failure,), "limit": 512, "model_limit": 8192, "cautions": ("mind this",), "version": "0.9"}
    severities = [finding.severity for finding in diagnose(checkup(**facts))]
    assert severities == ["problem", "warning", "warning", "note"]


def test_a_cure_is_for_the_folder_that_was_launched() -> None:
    failure = Failure(EndpointRejected("'m' is not served as a reranker. Launch: vllm serve X", status=404), "rerank")
    facts = {"failures": (failure,), "task": "rerank", "family": "qwen3-reranker"}
    assert "vllm serve /data/qwen3 --runner" in diagnose(checkup(source="/data/qwen3", **facts))[0].cure
    assert "vllm serve Qwen/Qwen3-Reranker-4B --runner" in (
        diagnose(checkup(source="an-alias", repo="Qwen/Qwen3-Reranker-4B", **facts))[0].cure
    )


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"access": {"/v1/models": "key"}}, None),
        ({"access": {"/v1/models": "open"}}, "the server asks nobody"),
        ({"access": {"/v1/models": "key", "/classify": "open"}}, "want no key: /classify"),
    ],
)
def test_keys(facts, said) -> None:
    found = diagnose(checkup(has_key=True, **facts))
    assert [said in finding.what for finding in found] == ([True] if said else [])
    assert diagnose(checkup(has_key=False, **facts)) == []


def test_the_cards_template_is_nothing_to_speak_of() -> None:
    assert (
        diagnose(checkup(task="rerank", reranking=Reranking("r", "probability", (0.9, 0.1), "card", (0.9, 0.1)))) == []
    )
