"""Prompts, byte for byte. The strings here were typed by hand from the collected facts, not made from the catalogue."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragpair.catalog import EmbeddingFamily, RerankerFamily, families, family
from ragpair.errors import ConfigurationError
from ragpair.prompts import Frame, Prompt, bind, effective_instruction, embedding_prompt, frame, user_prompt

WEB = "Given a web search query, retrieve relevant passages that answer the query"
PASSAGES = "Represent this sentence for searching relevant passages: hi"
VL_SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n"
VL = (
    VL_SYSTEM + "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    VL_SYSTEM + "<|im_start|>user\ndoc<|im_end|>\n<|im_start|>assistant\n",
)

# Family or repository: query "hi", document "doc".
EMBEDDING = {
    "qwen3-embedding": (f"Instruct: {WEB}\nQuery:hi", "doc"),
    "qwen3-vl-embedding": VL,
    "bge-en-v1.5": (PASSAGES, "doc"),
    "bge-zh-v1.5": ("为这个句子生成表示以用于检索相关文章：hi", "doc"),
    "bge-m3": ("hi", "doc"),
    "bge-multilingual-gemma2": (f"<instruct>{WEB}.\n<query>hi", "doc"),
    "bge-en-icl": (f"<instruct>{WEB}.\n<query>hi\n<response>", "doc"),
    "e5-english": ("query: hi", "passage: doc"),
    "multilingual-e5": ("query: hi", "passage: doc"),
    "multilingual-e5-large-instruct": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "e5-mistral-7b-instruct": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "gte-v1": ("hi", "doc"),
    "gte-en-v1.5-and-modernbert": ("hi", "doc"),
    "gte-multilingual-base": ("hi", "doc"),
    "gte-qwen2-instruct": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "nomic-embed-text-v1-v1.5": ("search_query: hi", "search_document: doc"),
    "nomic-embed-text-v2-moe": ("search_query: hi", "search_document: doc"),
    "nomic-ai/modernbert-embed-base": ("search_query: hi", "search_document: doc"),
    "nomic-ai/nomic-embed-code": ("Represent this query for searching relevant code: hi", "doc"),
    "nomic-ai/CodeRankEmbed": ("Represent this query for searching relevant code: hi", "doc"),
    "mxbai-embed": (PASSAGES, "doc"),
    "mxbai-de": ("query: hi", "passage: doc"),
    "snowflake-arctic-embed-v1": (PASSAGES, "doc"),
    "snowflake-arctic-embed-v2": ("query: hi", "doc"),
    "jina-embeddings-v2": ("hi", "doc"),
    "jina-embeddings-v3": (
        "Represent the query for retrieving evidence documents: hi",
        "Represent the document for retrieval: doc",
    ),
    "jina-embeddings-v4": ("Query: hi", "Passage: doc"),
    "jinaai/jina-embeddings-v4-vllm-text-matching": ("Query: hi", "Query: doc"),
    "jina-embeddings-v5-text": ("Query: hi", "Document: doc"),
    "jina-embeddings-v5-omni": ("Query: hi", "Document: doc"),
    "embeddinggemma-300m": ("task: search result | query: hi", "title: none | text: doc"),
    "embeddinggemma-2": ("task: search result | query: hi", "title: none | text: doc"),
    "sentence-transformers-classics": ("hi", "doc"),
    "granite-embedding": ("hi", "doc"),
    "stella-en-v5": (f"Instruct: {WEB}.\nQuery: hi", "doc"),
    "jasper": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "kalm-embedding-mini": ("Instruct: Given a query, retrieve documents that answer the query\nQuery:hi", "doc"),
    "HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v1.5": (
        "Instruct: Given a query, retrieve documents that answer the query \n Query: hi",
        "doc",
    ),
    "kalm-embedding-gemma3-12b": ("Instruct: Given a query, retrieve documents that answer the query\nQuery:hi", "doc"),
    "conan-embedding": ("hi", "doc"),
    "nv-embed": ("Instruct: Given a question, retrieve passages that answer the question\nQuery: hi", "doc"),
    "llama-embed-nemotron-8b": (
        "Instruct: Given a question, retrieve passages that answer the question\nQuery: hi",
        "doc",
    ),
    "llama-nemotron-embed-1b-v2": ("query: hi", "passage: doc"),
    "nemotron-3-embed": ("query: hi", "passage: doc"),
    "sfr-embedding": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "linq-embed-mistral": (
        "Instruct: Given a question, retrieve Wikipedia passages that answer the question\nQuery: hi",
        "doc",
    ),
    "inf-retriever-v1": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "voyage-4-nano": (
        "Represent the query for retrieving supporting documents: hi",
        "Represent the document for retrieval: doc",
    ),
    "bce-embedding": ("hi", "doc"),
    "chinese-no-prefix": ("hi", "doc"),
    "harrier-oss-v1": (f"Instruct: {WEB}\nQuery: hi", "doc"),
    "octen-embedding": (f"Instruct: {WEB}\nQuery:hi", " doc"),
    "pplx-embed": ("hi", "doc"),
    "zembed-1": (
        "<|im_start|>system\nquery<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n",
        "<|im_start|>system\ndocument<|im_end|>\n<|im_start|>user\ndoc<|im_end|>\n",
    ),
    "lfm2.5-embedding": ("query: hi", "document: doc"),
    "lighton-denseon": ("query: hi", "document: doc"),
    "bekko-embedding": ("hi", "doc"),
    "f2llm-v2": ("Instruct: Given a question, retrieve passages that can help answer the question.\nQuery: hi", "doc"),
    "uembed": VL,
    "youtu-embedding": (
        "Instruction: Given a search query, retrieve passages that answer the question \nQuery: hi",
        "doc",
    ),
    "qzhou-yuan-en": (f"Instruct: {WEB}\nQuery:hi", "doc"),
    "BAAI/bge-code-v1": ("<instruct>find code\n<query>hi", "doc"),
    "BAAI/bge-reasoner-embed-qwen3-8b-0923": ("Instruct: find code\nQuery: hi", "doc"),
    "gritlm-reasonir": ("<|user|>\nfind code\n<|embed|>\nhi", "<|embed|>\ndoc"),
    "cl-nagoya/ruri-v3-310m": ("検索クエリ: hi", "検索文書: doc"),
    "cl-nagoya/ruri-base": ("クエリ: hi", "文章: doc"),
    "cl-nagoya/ruri-large-v2": ("クエリ: hi", "文章: doc"),
    "telepix/PIXIE-Rune-v1.5": ("query: hi", "doc"),
    "nlpai-lab/KURE-v3": ("query: hi", "passage: doc"),
}
NO_DEFAULT = {"BAAI/bge-code-v1", "BAAI/bge-reasoner-embed-qwen3-8b-0923", "gritlm-reasonir"}

JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
BGE_SIDE_A = "A: q\n"
BGE_SIDE_B = (
    "B: d\nGiven a query A and a passage B, determine whether the passage contains an answer to the query by providing "
    "a prediction of either 'Yes' or 'No'."
)
QWEN2 = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI_B = (
    "document: d\nYou are a search relevance expert who evaluates how well documents match search queries. For each "
    "query-document pair, carefully analyze the semantic relationship between them, then provide your binary relevance "
    "judgment (0 for not relevant, 1 for relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
)
CHECK = "Check whether a given document contains information helpful to answer the query."
QWEN3_B = "<Document>: d<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

# Family or repository, instruction: query side and document side, or the whole where it does not split.
FRAMES: list[tuple[str, str | None, tuple[str, ...]]] = [
    ("qwen3-reranker", None, (f"{JUDGE}<Instruct>: {WEB}\n<Query>: q\n", QWEN3_B)),
    ("tomaarsen/Qwen3-Reranker-8B-seq-cls", "I", (f"{JUDGE}<Instruct>: I\n<Query>: q\n", QWEN3_B)),
    (
        "qwen3-vl-reranker",
        None,
        (
            f"{JUDGE}<Instruct>: Given a search query, retrieve relevant candidates that answer the query."
            "<Query>:q\n<Document>:d<|im_end|>\n<|im_start|>assistant\n",
        ),
    ),
    ("bge-reranker-v2-gemma", None, (BGE_SIDE_A, BGE_SIDE_B)),
    ("bge-reranker-minicpm-layerwise", None, (BGE_SIDE_A, BGE_SIDE_B)),
    ("bge-reranker-v2.5-gemma2-lightweight", None, (BGE_SIDE_A, BGE_SIDE_B)),
    ("mxbai-rerank-v2", None, (f"{QWEN2}query: q\n", MXBAI_B)),
    ("mxbai-rerank-v2", "I", (f"{QWEN2}instruction: I\nquery: q\n", MXBAI_B)),
    ("llama-nemotron-rerank", None, ("question:q", " \n \n passage:d")),
    ("ctxl-rerank-v2", None, (f"{CHECK}\n<Document> d\n<Query> q ??",)),
    ("ctxl-rerank-v2", "I", (f"{CHECK}\n<Document> d\n<Query> q I ??",)),
    (
        "zerank",
        None,
        (
            "<|im_start|>system\nq<|im_end|>\n",
            "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n",
        ),
    ),
    (
        "zeroentropy/zerank-2-reranker",
        "I",
        (
            "<|im_start|>system\n<query>q</query>\n<instruction>I</instruction><|im_end|>\n",
            "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n",
        ),
    ),
    (
        "Querit/Querit-4B",
        None,
        ("Judge whether the Content meets the requirements based on the Query. Query: q; Content: d[CLS]",),
    ),
    ("Querit/Querit-4B", "I", ("I Query: q; Content: d[CLS]",)),
]
NO_FRAME = {
    "pair": {
        *("bge-reranker-xlmr", "jina-reranker-v1-v2", "mxbai-rerank-v1", "gte-reranker-modernbert"),
        *("gte-multilingual-reranker-base", "ms-marco-minilm", "granite-reranker", "bce-reranker", "ettin-reranker"),
    },
    "server": {"jina-reranker-m0", "jina-reranker-v3"},
    "unknown": {"nemotron-3.5-rerank", "kalm-reranker-v1", "lighton-rerank", "prism-querit-kure"},
}


def embedding(name: str) -> EmbeddingFamily:
    return family(name, kind="embedding")


def reranker(name: str) -> RerankerFamily:
    return family(name, kind="reranker")


@pytest.mark.parametrize("name", EMBEDDING)
def test_embedding_prompts_byte_for_byte(name):
    instruction = "find code" if name in NO_DEFAULT else None
    query = embedding_prompt(embedding(name), "query", instruction)
    document = embedding_prompt(embedding(name), "document", instruction)
    assert (query.render("hi"), document.render("doc")) == EMBEDDING[name]


@pytest.mark.parametrize(("name", "instruction", "expected"), FRAMES)
def test_frames_byte_for_byte(name, instruction, expected):
    made = frame(reranker(name), instruction)
    assert made
    assert made.full("q", "d") == "".join(expected)
    assert made.splits is (len(expected) == 2)
    if made.splits:
        assert (made.query_side("q"), made.document_side("d")) == expected
    else:
        with pytest.raises(ConfigurationError, match="template"):
            made.query_side("q")
        with pytest.raises(ConfigurationError, match="template"):
            made.document_side("d")


@pytest.mark.parametrize(
    ("framing", "id_"), [(framing, id_) for framing, ids in NO_FRAME.items() for id_ in sorted(ids)]
)
def test_rerankers_whose_prompt_is_not_ours_to_write(framing, id_):
    assert reranker(id_).framing == framing
    assert frame(reranker(id_)) is None


def test_no_family_is_left_out():
    seen = {family(name).id for name in (*EMBEDDING, *(row[0] for row in FRAMES), *set().union(*NO_FRAME.values()))}
    assert seen | {"colbert-family"} == families().keys()


@pytest.mark.parametrize("name", ["ruri-japanese", "bge-code-and-reasoner", "nomic-modernbert-and-code", "korean-2026"])
@pytest.mark.parametrize("side", ["query", "document"])
def test_a_family_whose_models_differ_wants_a_model(name, side):
    if name == "bge-code-and-reasoner" and side == "document":
        assert embedding_prompt(embedding(name), side) == Prompt()
        return
    with pytest.raises(ConfigurationError, match="name one") as caught:
        embedding_prompt(embedding(name), side)
    assert families()[name].models[0].repo in str(caught.value)


def test_the_markers_of_colbert_cannot_be_written():
    with pytest.raises(ConfigurationError, match="marked by tokens"):
        embedding_prompt(family("lightonai/LateOn", kind="multi-vector"), "query")


def test_an_instruction_replaces_the_default_for_queries_only():
    assert (
        embedding_prompt(embedding("qwen3-embedding"), "query", "Find it").render("hi") == "Instruct: Find it\nQuery:hi"
    )
    assert embedding_prompt(embedding("qwen3-embedding"), "document", "Find it").render("doc") == "doc"
    assert embedding_prompt(embedding("qwen3-vl-embedding"), "document", "Find it").render("doc") == VL[1]


@pytest.mark.parametrize(
    ("given", "told"),
    [("Find it", "Find it."), (" Find it! ", "Find it!"), ("找到它。", "找到它。"), ("5 $", "5 $."), ("a\n", "a.")],
)
def test_the_full_stop_of_qwen3_vl(given, told):
    for name in ("qwen3-vl-embedding", "uembed"):
        assert effective_instruction(embedding(name), given) == told


@pytest.mark.parametrize(
    "name", ["bge-m3", "e5-english", "bge-reranker-xlmr", "bge-reranker-v2-gemma", "jina-reranker-m0", "zerank"]
)
def test_an_instruction_is_refused_where_it_has_no_place(name):
    with pytest.raises(ConfigurationError, match=f"'{name}' has no place") as caught:
        effective_instruction(family(name), "Find it")
    assert "Find it" in str(caught.value)


def test_refusals_reach_the_callers():
    for side in ("query", "document"):
        with pytest.raises(ConfigurationError, match="no place"):
            embedding_prompt(embedding("bge-m3"), side, "Find it")
    with pytest.raises(ConfigurationError, match="no place"):
        frame(reranker("ms-marco-minilm"), "Find it")
    with pytest.raises(ConfigurationError, match="blank"):
        frame(reranker("qwen3-reranker"), " \n")
    with pytest.raises(ConfigurationError, match="instruction"):
        embedding_prompt(embedding("gritlm-reasonir"), "query")


def test_a_listwise_engine_takes_the_instruction_as_a_field():
    assert frame(reranker("jina-reranker-v3"), "Find it") is None
    assert effective_instruction(reranker("jina-reranker-v3"), "Find it") == "Find it"


@pytest.mark.parametrize(
    "text", ["{text}", "{instruction}", "{query} {document}", "{", "{{}}", " a\n\tb ", "\\1\\g<0>", ""]
)
def test_braces_and_spaces_of_a_text_survive(text):
    told = "{text} {query} {document} {instruction}"
    prompt = embedding_prompt(embedding("qwen3-embedding"), "query", told)
    assert prompt.render(text) == f"Instruct: {told}\nQuery:{text}"
    split, whole = frame(reranker("mxbai-rerank-v2"), told), frame(reranker("ctxl-rerank-v2"), told)
    assert split
    assert split.query_side(text) == f"{QWEN2}instruction: {told}\nquery: {text}\n"
    assert split.document_side(text) == MXBAI_B.replace("document: d", f"document: {text}", 1)
    assert whole
    assert whole.full(text, text) == f"{CHECK}\n<Document> {text}\n<Query> {text} {told} ??"
    assert user_prompt("{x} {text}").render(text) == f"{{x}} {text}"


def test_prompts_of_the_user():
    assert user_prompt("query: ") == Prompt("query: ")
    assert user_prompt("") == Prompt()
    assert user_prompt("<q>{text}</q>") == Prompt("<q>", "</q>")
    assert user_prompt('{"a": {text}}') == Prompt('{"a": ', "}")
    assert user_prompt("Task: {instruction}\nQ: ", "find {text}") == Prompt("Task: find {text}\nQ: ")
    with pytest.raises(ConfigurationError, match="exactly once"):
        user_prompt("{text} {text}")
    with pytest.raises(ConfigurationError, match=r"no \{instruction\}"):
        user_prompt("query: ", "Find it")
    with pytest.raises(ConfigurationError, match="needs a value"):
        user_prompt("Task: {instruction}\nQ: {text}")


@pytest.mark.parametrize("slot", ["{query}", "{document}", "{input}", "{0}", "{}"])
def test_a_template_of_another_library_is_no_prefix(slot):
    with pytest.raises(ConfigurationError, match=re.escape(f"holds {slot}") + r".*Write \{text\} where the text goes"):
        user_prompt(f"search_query: {slot}")
    assert user_prompt(f"{slot} {{text}}") == Prompt(f"{slot} ")
    assert user_prompt('{"a": 1} ') == Prompt('{"a": 1} ')


def test_a_title_is_one_more_value():
    template = embedding("embeddinggemma-300m").document_with_title
    assert template
    assert bind(template, title="{text}").render("doc") == "title: {text} | text: doc"


def test_prompts_and_frames_pickle():
    made = frame(reranker("qwen3-reranker"))
    assert pickle.loads(pickle.dumps(made)) == made
    assert isinstance(made, Frame)


@given(name=st.sampled_from(sorted(EMBEDDING)), side=st.sampled_from(["query", "document"]), text=st.text())
def test_a_prompt_is_prefix_text_suffix(name, side, text):
    made = embedding_prompt(embedding(name), side, "Find it" if name in NO_DEFAULT else None)
    assert made.render(text) == made.prefix + text + made.suffix


@given(row=st.sampled_from(FRAMES), query=st.text(), document=st.text())
def test_a_frame_holds_both_texts_whole(row, query, document):
    made = frame(reranker(row[0]), row[1])
    assert made
    first, second = made.query.render(query), made.document.render(document)
    assert made.full(query, document) == (second + first if made.document_first else first + second)
    if made.splits:
        assert made.full(query, document) == made.query_side(query) + made.document_side(document)
