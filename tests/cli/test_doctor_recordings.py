"""The doctor on recordings of servers that were launched wrongly: what it calls the trouble, and what mends it."""

from dataclasses import dataclass, field

import pytest

from ragpair.doctor import Ask, Checkup, Finding, diagnose, examine

from .replay import played

QWEN3 = "qwen3-reranker"
OVERRIDES = '"classifier_from_token":["no","yes"],"is_original_qwen3_reranker":true'


@dataclass(frozen=True)
class State:
    """A server, what the user says of it, and what must be found."""

    cassette: str
    what: str
    why: str = ""
    cure: str = ""
    ask: Ask = field(default_factory=Ask)


STATES = {
    "architectures only, the launch that guides copy": State(
        "vllm/qwen3-two-classes",
        "name the architecture only",
        "looks healthy",
        f"vllm serve models/qwen3-rr-orig --runner pooling --hf-overrides '{{"
        f'"architectures":["Qwen3ForSequenceClassification"],{OVERRIDES}}}\'',
        Ask(family=QWEN3),
    ),
    "the same under a name that tells nothing": State(
        "vllm/qwen3-two-classes", "the launch lacks classifier_from_token", "looks healthy", OVERRIDES
    ),
    "num_labels in place of classifier_from_token": State(
        "vllm/qwen3-random-head", "uninitialised classifier", "noise", OVERRIDES, Ask(family=QWEN3)
    ),
    "launched to generate": State(
        "vllm/qwen3-generates", "is not served as a reranker", "looks healthy", OVERRIDES, Ask(family=QWEN3)
    ),
    "an embedder behind the rerank route": State(
        "vllm/cosines-refused", "returns cosine scores", "A threshold", ask=Ask(expect="rerank", family=None)
    ),
    "a reranker where an embedder is expected": State(
        "vllm/embeddings-of-a-reranker", "is not served as an embedding model", ask=Ask(expect="embed")
    ),
    "a wrong key": State("vllm/wrong-key", "wants an API key", "Nothing else can be seen"),
    "SGLang: encoder with the radix cache on": State(
        "sglang/radix-cache",
        "radix cache on",
        "ends the server for everybody",
        "--disable-radix-cache --chunked-prefill-size -1",
    ),
    "SGLang: pooled by the wrong token": State(
        "sglang/pooled-wrongly", "pools 'minilm' by 'cls'", "no error ever shows", "vllm serve models/all-MiniLM-L6-v2"
    ),
    "SGLang: embedder that answers rerank requests": State(
        "sglang/embedder-as-reranker", "meaningless numbers", "Rankings would mean nothing", ask=Ask(expect="rerank")
    ),
    "SGLang: Qwen3-Reranker with --is-embedding": State(
        "sglang/embedder-as-reranker",
        "meaningless numbers",
        "Rankings would mean nothing",
        "sglang serve --model-path Qwen/Qwen3-Reranker-0.6B --disable-radix-cache",
        Ask(family=QWEN3),
    ),
    "SGLang: a language model that nobody calls a reranker": State(
        "sglang/language-model-as-reranker", "name its family", ask=Ask(expect="rerank")
    ),
    "llama.cpp: reranker asked to embed": State(
        "llamacpp/reranker-as-embedder", "vectors would be garbage", "at random", ask=Ask(expect="embed")
    ),
    "llama.cpp: started without --reranking": State(
        "llamacpp/embedder-as-reranker", "does not support reranking", cure="--reranking", ask=Ask(expect="rerank")
    ),
    "llama.cpp: started without --embeddings": State(
        "llamacpp/language-model-as-embedder",
        "does not support embeddings",
        cure="--embeddings",
        ask=Ask(expect="embed"),
    ),
    "Ollama: reranker file with a rank head": State(
        "ollama-from-source/rank-head-as-embedder",
        "embedding requests to it with garbage",
        "at random",
        ask=Ask("qwen3-reranker-rank"),
    ),
    "Ollama: a cross-encoder": State(
        "ollama-from-source/cross-encoder", "cannot rerank on Ollama", ask=Ask("bge-reranker", expect="rerank")
    ),
    "Ollama: too old for likelihoods": State(
        "ollama-from-source/reranker-on-0.12.10",
        "no token likelihoods",
        ask=Ask("reranker", expect="rerank", family=QWEN3),
    ),
    "Ollama: several models": State("ollama-from-source/several-models", "several models", "which of them is meant"),
    "Ollama: a model that is not there": State(
        "ollama-from-source/missing-model",
        "has no model 'no-such'",
        cure="ollama pull no-such",
        ask=Ask("no-such", expect="embed"),
    ),
}


def seen(state: State) -> tuple[Checkup, list[Finding]]:
    with played(state.cassette) as url:
        checkup = examine(url, state.ask)
    return checkup, diagnose(checkup)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_first_finding_names_the_trouble(state: State) -> None:
    _, (first, *rest) = seen(state)
    assert first.severity == "problem"
    assert state.what in first.what
    assert state.why in first.why
    assert first.why
    assert state.cure in first.cure
    assert not any(finding.severity == "problem" for finding in rest)


def test_commands_are_told_once() -> None:
    _, (first, *_) = seen(STATES["architectures only, the launch that guides copy"])
    assert "vllm serve" in first.cure
    assert "vllm serve" not in first.what


def test_what_is_known_of_a_broken_server_is_shown_all_the_same() -> None:
    checkup, _ = seen(STATES["architectures only, the launch that guides copy"])
    assert (checkup.engine, checkup.version, checkup.model, checkup.task) == ("vllm", "0.32.0", QWEN3, "rerank")
    assert (checkup.family, checkup.limit, checkup.source) == (QWEN3, 512, "models/qwen3-rr-orig")
