"""The catalogue: complete, consistent, and found by exact names only."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest

from ragpair import prompts
from ragpair.catalog import EmbeddingFamily, FrameText, Matryoshka, RerankerFamily, families, family, find
from ragpair.errors import ConfigurationError

FACTS = Path(__file__).resolve().parents[2] / "shared" / "facts" / "catalogue.json"
ALL_REPOS = [(one.id, model.repo) for one in families().values() for model in one.models]
ALL_TAGS = [(one.id, tag) for one in families().values() for tag in one.ollama]


def id_of(*names: str | None) -> str | None:
    match = find(*names)
    return match.family.id if match else None


def test_every_family_is_there():
    kinds = [one.kind for one in families().values()]
    assert (kinds.count("embedding"), kinds.count("multi-vector"), kinds.count("reranker")) == (61, 1, 24)
    assert all(one.sources for one in families().values())
    assert all(one.models for one in families().values())


def test_no_repository_or_tag_stands_twice():
    assert len({repo.casefold() for _, repo in ALL_REPOS}) == len(ALL_REPOS)
    assert len({tag for _, tag in ALL_TAGS}) == len(ALL_TAGS)
    assert all(tag == tag.casefold() for _, tag in ALL_TAGS)


@pytest.mark.parametrize(("id_", "repo"), ALL_REPOS)
def test_a_repository_is_found_by_each_of_its_spellings(id_, repo):
    org, _, base = repo.partition("/")
    for name in (
        repo,
        repo.upper(),
        base,
        f"/models/{base}",
        f"C:\\models\\{base}",
        f"someone/{base}:Q8_0",
        f"hf.co/{repo}-GGUF:Q4_K_M",
        f"/m/{base.lower()}-q8_0.gguf",
        f"/home/me/.cache/huggingface/hub/models--{org}--{base}/snapshots/0123abc",
    ):
        match = find(name)
        assert match, name
        assert (match.family.id, match.repo) == (id_, repo), name
        assert match.family.kind == families()[id_].kind


@pytest.mark.parametrize(("id_", "tag"), ALL_TAGS)
def test_an_ollama_name_is_found_with_and_without_latest(id_, tag):
    assert id_of(tag) == id_
    assert id_of(tag.upper()) == id_
    assert id_of(f"{tag}-fp16" if ":" in tag else f"{tag}:latest") == id_


@pytest.mark.parametrize(
    ("name", "repo", "dims"),
    [
        ("qwen3-embedding", None, None),
        ("qwen3-embedding:latest", None, None),
        ("qwen3-embedding:4b-q4_K_M", "Qwen/Qwen3-Embedding-4B", 2560),
        ("snowflake-arctic-embed:137m", "Snowflake/snowflake-arctic-embed-m-long", 768),
        ("snowflake-arctic-embed2", "Snowflake/snowflake-arctic-embed-l-v2.0", 1024),
        ("all-minilm:22m-l6-v2-fp16", "sentence-transformers/all-MiniLM-L6-v2", 384),
        ("bge-m3:567m", "BAAI/bge-m3", 1024),
        ("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5", 768),
        ("sam860/qwen3-reranker:0.6b-Q8_0", "Qwen/Qwen3-Reranker-0.6B", None),
        ("dengcao/Qwen3-Reranker-0.6B:Q8_0", "Qwen/Qwen3-Reranker-0.6B", None),
        ("nvidia/Nemotron-3-Embed-8B-BF16", "nvidia/Nemotron-3-Embed-8B-BF16", 4096),
    ],
)
def test_the_model_behind_a_name(name, repo, dims):
    match = find(name)
    assert match
    assert (match.repo, match.dims) == (repo, dims)


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", ":", "jina", "arctic", "qwen3", "e5", "bge", "gte", "nomic", "embedding", "reranker", "gpt-4o"),
        *("BAAI", "BAAI/", "my-Qwen3-Embedding-0.6B", "Qwen3-Embedding-0.6B-finetuned", "jina-embeddings", "q8_0.gguf"),
        *("snowflake-arctic-embed3", "qwen3-embedding-zh", "me/qwen3-embedding", "text-embedding-3-small", "models--x"),
    ],
)
def test_a_name_that_only_resembles_is_unknown(name):
    assert find(name) is None


def test_no_name_is_no_match():
    assert find() is None
    assert find(None, "") is None


def test_an_exact_id_wins_over_an_alias_whatever_their_order():
    assert id_of("bge-m3", "Qwen/Qwen3-Embedding-0.6B") == "qwen3-embedding"
    assert id_of("/models/e5-small-v2", "bge-m3:latest") == "bge-m3"
    assert id_of("my-alias", None, "/models/e5-small-v2") == "e5-english"


def test_kind_restricts():
    assert find("BAAI/bge-m3", kind="reranker") is None
    assert find("BAAI/bge-reranker-v2-m3", kind="embedding") is None
    assert find("lightonai/LateOn", kind="embedding") is None
    assert isinstance(find("lightonai/LateOn", kind="multi-vector").family, EmbeddingFamily)
    assert isinstance(find("BAAI/bge-reranker-v2-m3", kind="reranker").family, RerankerFamily)
    assert find("BAAI/bge-m3", "BAAI/bge-reranker-v2-m3", kind="reranker").repo == "BAAI/bge-reranker-v2-m3"


def test_a_family_by_id_or_by_exact_repository():
    assert family("qwen3-embedding").id == "qwen3-embedding"
    assert family("ruri-japanese", kind="embedding").query is None
    assert family("cl-nagoya/ruri-v3-30m", kind="embedding").query == "検索クエリ: {text}"


@pytest.mark.parametrize(
    ("name", "near"),
    [("qwen3-embeding", "'qwen3-embedding'"), ("Qwen/Qwen3-Embeding-0.6B", "'Qwen/Qwen3-Embedding-0.6B'")],
)
def test_a_wrong_id_suggests_the_right_one(name, near):
    with pytest.raises(ConfigurationError, match="Did you mean") as caught:
        family(name)
    assert near in str(caught.value)


def test_a_family_of_the_wrong_kind_is_refused():
    with pytest.raises(ConfigurationError, match="reranker"):
        family("bge-m3", kind="reranker")
    with pytest.raises(ConfigurationError, match="ragpair models"):
        family("§§§")


def test_everything_pickles():
    for _, repo in ALL_REPOS:
        match = find(repo)
        assert pickle.loads(pickle.dumps(match)) == match
        assert hash(match.family)


@pytest.mark.parametrize(
    ("repo", "facts"),
    [
        ("thenlper/gte-base", {"pooling": "mean"}),
        ("thenlper/gte-base-zh", {"pooling": "cls"}),
        ("mixedbread-ai/mxbai-embed-xsmall-v1", {"pooling": "mean", "matryoshka": None}),
        ("nlpai-lab/KURE-v3", {"pooling": "mean", "evidence": "memory"}),
        ("telepix/PIXIE-Rune-v1.5", {"pooling": "cls", "evidence": "code"}),
        ("IEITYuan/Yuan-embedding-2.0-en", {"pooling": "last"}),
        ("sentence-transformers/LaBSE", {"pooling": "cls", "normalize": True}),
        ("sentence-transformers/paraphrase-multilingual-mpnet-base-v2", {"normalize": False}),
        ("moka-ai/m3e-base", {"normalize": False}),
        ("perplexity-ai/pplx-embed-v1-4b", {"normalize": False, "eos": False}),
        ("Qwen/Qwen3-Embedding-8B", {"normalize": True, "eos": True, "matryoshka": Matryoshka(min=32)}),
        ("nomic-ai/nomic-embed-text-v1", {"matryoshka": None}),
        (
            "nomic-ai/nomic-embed-text-v1.5",
            {"matryoshka": Matryoshka((768, 512, 256, 128, 64), layer_norm=True)},
        ),
        ("Snowflake/snowflake-arctic-embed-m", {"matryoshka": None}),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", {"matryoshka": Matryoshka((768, 256))}),
        ("ibm-granite/granite-embedding-278m-multilingual", {"matryoshka": None}),
        ("BAAI/bge-m3", {"matryoshka": None}),
        ("nvidia/Nemotron-3-Embed-8B-BF16", {"matryoshka": None, "evidence": "code"}),
        ("nvidia/Nemotron-3.5-Embed-8B-BF16", {"evidence": "memory"}),
        ("lightonai/LightOn-rerank-LW-4B", {"type": "listwise", "true_token": None}),
        ("ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b", {"true_token": "!", "true_token_id": 0}),
        ("ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b", {"true_token": "<unk>", "true_token_id": 0}),
        ("Qwen/Qwen3-Reranker-4B", {"true_token_id": 9693, "false_token_id": 2152}),
        ("cross-encoder/ms-marco-MiniLM-L-6-v2", {"llamacpp_wrong": True}),
    ],
)
def test_facts_of_single_models(repo, facts):
    found = family(repo)
    assert {key: getattr(found, key) for key in facts} == facts


@pytest.mark.parametrize(
    ("repo", "score"),
    [
        ("Qwen/Qwen3-Reranker-0.6B", ("probability", 0, 1, "probability", "probability")),
        ("tomaarsen/Qwen3-Reranker-0.6B-seq-cls", ("probability", 0, 1, "probability", "logit")),
        ("BAAI/bge-reranker-v2-m3", ("logit", 0, 1, "probability", "logit")),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", ("logit", 0, 1, "logit", "logit")),
        ("mixedbread-ai/mxbai-rerank-base-v2", ("logit", 4.5, 1, "sigmoid", None)),
        ("mixedbread-ai/mxbai-rerank-large-v2", ("logit", 6, 1, "sigmoid", None)),
        ("jinaai/jina-reranker-m0", ("probability", 2.65, 1, "probability", None)),
        ("jinaai/jina-reranker-v3", ("cosine", 0, 1, "cosine", None)),
        ("zeroentropy/zerank-2-reranker", ("probability", 0, 5, "probability", None)),
        ("cross-encoder/ettin-reranker-1b-v1", ("logit", 6, 1, None, None)),
        ("lightonai/LightOn-rerank-LW-0.8B", ("rank", 0, 1, None, None)),
    ],
)
def test_what_the_numbers_mean(repo, score):
    assert tuple(asdict(family(repo, kind="reranker").score).values()) == score


def test_widths():
    assert Matryoshka(min=32).can_cut(100)
    assert not Matryoshka(min=32).can_cut(31)
    assert Matryoshka((256, 128)).can_cut(128)
    assert not Matryoshka((256, 128)).can_cut(200)
    zembed = family("zembed-1", kind="embedding").matryoshka
    assert zembed
    assert 640 in zembed.dims
    assert not zembed.can_cut(640)


def test_control_tokens_of_framed_prompts_are_known():
    for one in families().values():
        if isinstance(one, RerankerFamily) and "<|im_start|>" in str(one.frame or ""):
            assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(one.special_tokens), one.id
    assert {"<think>", "</think>"} <= set(family("qwen3-reranker").special_tokens)


def test_a_frame_is_either_split_or_whole():
    for one in families().values():
        if isinstance(one, RerankerFamily) and one.frame:
            assert str(one.frame).count("{query}") == str(one.frame).count("{document}") == 1
            assert bool(one.frame.full) != bool(one.frame.query_side and one.frame.document_side)
    assert str(FrameText("a{query}", "b{document}")) == "a{query}b{document}"


@pytest.mark.skipif(
    not FACTS.exists(), reason="the collection that the catalogue was drawn from is not beside this tree"
)
def test_against_the_collection():
    rows = {row["id"]: row for row in json.loads(FACTS.read_text(encoding="utf-8"))["families"]}
    assert families().keys() == rows.keys()
    grades = {"card text seen": "card", "second-hand code seen": "code", "memory only": "memory"}
    for id_, row in rows.items():
        ours = families()[id_]
        assert (ours.kind, ours.evidence) == (row["kind"], grades[row["confidence"]])
        assert ours.instruction == row["default_instruction"]
        if isinstance(ours, EmbeddingFamily) and row["kind"] == "embedding" and ours.query is not None:
            for side in ("query", "document"):
                theirs = row[f"{side}_template"].replace("{examples}", "")
                told = theirs.replace("{instruction}", ours.instruction or "find")
                got = prompts.embedding_prompt(
                    ours, side, "find" if ours.takes_instruction and not ours.instruction else None
                )
                assert got.render("{text}") == told, id_
            assert ours.document_with_title == row.get("document_template_with_title")
        if isinstance(ours, RerankerFamily):
            halves = row["client_template"]
            if halves:
                assert ours.frame is not None
                assert (ours.frame.query_side, ours.frame.document_side) == (
                    halves["query_side"],
                    halves["document_side"],
                )
            full = row["prompt"].get("full", "")
            if ours.frame and full:
                same = full.removeprefix("<bos>").replace("{instruction_with_leading_space}", "")
                assert str(ours.frame) == same, id_
