"""What `ragpair launch` prints, started for real: the same flags, on a tiny model of the same architecture.

Two things differ from what a user runs, and are changed in `on_a_cpu`: triton, which only GPUs have, becomes
torch_native, and the program is started as the module that `servers.serve` knows. The length is that of the tiny
models, asked for as a user would, by --max-tokens.
"""

from bisect import bisect_left

import httpx
import numpy as np

from ragpair import Embedder, Reranker
from ragpair import launch as launching

from .launches import LAUNCHES, TEMPLATES, Launch, on
from .models import model
from .reference import reference
from .servers import Server
from .test_contract import CARD_EMBEDDING, CARD_INSTRUCTION, DOCUMENTS, QUERIES, QUERY, cosines, sigmoid
from .test_mislaunches import cards_scores


def on_a_cpu(plan: launching.Launch) -> tuple[str, ...]:
    """The flags of a plan, without the model, which the tiny one replaces."""
    words: list[str] = []
    for flag in plan.server.flags:
        if flag.name != "--model-path":
            value = "torch_native" if flag.name == "--attention-backend" else flag.value
            words += [flag.name] if value is None else [flag.name, value]
    return tuple(words)


def planned(engine: launching.Engine, repo: str, tiny: str, **options: object) -> Launch:
    plan = launching.plan(repo, engine, **options)  # type: ignore[arg-type]
    return Launch(engine, tiny, f"as `ragpair launch {repo} --engine {engine}` has it", on_a_cpu(plan))


LAUNCHES |= {
    "planned-vllm-embedder": planned("vllm", "Qwen/Qwen3-Embedding-0.6B", "qwen3-emb", max_tokens=512),
    "planned-vllm-encoder": planned("vllm", "sentence-transformers/all-MiniLM-L6-v2", "minilm", max_tokens=256),
    "planned-vllm-reranker": planned(
        "vllm", "Qwen/Qwen3-Reranker-0.6B", "qwen3-rr-orig", max_tokens=512, template_dir=str(TEMPLATES / "vllm")
    ),
    "planned-sglang-embedder": planned("sglang", "Qwen/Qwen3-Embedding-0.6B", "qwen3-emb"),
    "planned-sglang-encoder": planned("sglang", "BAAI/bge-small-en-v1.5", "minilm"),
    "planned-sglang-cross-encoder": planned("sglang", "BAAI/bge-reranker-base", "xlmr-rr"),
    "planned-sglang-reranker": planned(
        "sglang", "Qwen/Qwen3-Reranker-0.6B", "qwen3-rr-orig", template_dir=str(TEMPLATES / "sglang")
    ),
}


def post(served: Server, path: str, **body: object) -> httpx.Response:
    return httpx.post(served.base_url + path, json={"model": served.model, **body}, timeout=120, trust_env=False)


def pair(served: Server, words: int) -> httpx.Response:
    return post(served, "/v1/rerank", query="a", documents=["x " * words], return_documents=False)


@on("planned-vllm-embedder", "planned-sglang-embedder")
def test_an_embedder_gives_the_cards_vectors_and_lets_other_clients_cut_them(served: Server) -> None:
    embedder = Embedder(served.base_url, family="qwen3-embedding")
    assert embedder.describe()["query_prompt"].startswith("Instruct: ")
    texts = [CARD_EMBEDDING.format(instruction=CARD_INSTRUCTION, query=query) for query in QUERIES]
    vectors = embedder.embed_queries(QUERIES)
    assert cosines(vectors, reference("embed-last", model("qwen3-emb"), texts)).min() > 0.9999
    reply = post(served, "/v1/embeddings", input="a", dimensions=32)
    assert len(reply.json()["data"][0]["embedding"]) == 32


@on("planned-vllm-encoder", "planned-sglang-encoder")
def test_an_encoder_is_pooled_as_its_card_says(served: Server) -> None:
    if served.engine == "vllm":
        family, expected = "sentence-transformers/all-MiniLM-L6-v2", reference("embed-mean", model("minilm"), DOCUMENTS)
    else:
        family, expected = "BAAI/bge-small-en-v1.5", reference("embed-cls", model("minilm"), DOCUMENTS)
    embedder = Embedder(served.base_url, family=family)
    for _ in range(2):  # a cached prefix would change the second
        assert cosines(embedder.embed_documents(DOCUMENTS), expected).min() > 0.9999


@on("planned-vllm-reranker", "planned-sglang-reranker")
def test_a_reranker_gives_the_cards_scores_to_ragpair_and_to_others(served: Server) -> None:
    reranker = Reranker(served.base_url, family="qwen3-reranker")
    assert reranker.describe()["route"].startswith("own prompt over ")
    np.testing.assert_allclose(reranker.score(QUERY, DOCUMENTS), cards_scores(), atol=1e-3)
    if served.engine == "vllm":
        rows = post(served, "/v1/score", text_1=QUERY, text_2=DOCUMENTS).json()["data"]
    else:
        rows = post(served, "/v1/rerank", query=QUERY, documents=DOCUMENTS).json()
    scores = [row["score"] for row in sorted(rows, key=lambda row: row["index"])]
    np.testing.assert_allclose(scores, cards_scores(), atol=1e-3)


@on("planned-sglang-cross-encoder")
def test_a_cross_encoder_scores_and_lives_on_after_a_text_that_is_too_long(served: Server) -> None:
    logits = reference("pairs", model("xlmr-rr"), [(QUERY, document) for document in DOCUMENTS])
    reranker = Reranker(served.base_url, family="bge-reranker-xlmr")
    np.testing.assert_allclose(reranker.score(QUERY, DOCUMENTS), sigmoid(logits), atol=1e-3)
    longest = bisect_left(range(1, 600), True, key=lambda count: not pair(served, count).is_success)
    assert 500 < pair(served, longest).json()[0]["meta_info"]["prompt_tokens"] < 512
    for count in range(longest + 1, longest + 6):  # without --context-length, one of these kills the server
        assert "longer than the model's context length (512 tokens)" in pair(served, count).text
    np.testing.assert_allclose(reranker.score(QUERY, DOCUMENTS), sigmoid(logits), atol=1e-3)
