"""The templates render what the model cards say, byte for byte, when compiled and called as each engine does it.

The prompts below were typed by hand, not made from the templates or the catalogue. vLLM 0.32 and SGLang 0.5.23 read a
file, compile it and call it in ways of their own; `as_vllm` and `as_sglang` say how.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
from jinja2 import meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

import ragpair
from ragpair.catalog import family
from ragpair.prompts import frame

TEMPLATES = Path(ragpair.__file__).parent / "templates"

JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
WEB = "Given a web search query, retrieve relevant passages that answer the query"
CANDIDATES = "Given a search query, retrieve relevant candidates that answer the query."
THINK = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
MXBAI_SYSTEM = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
CTXL = "Check whether a given document contains information helpful to answer the query.\n"
GEMMA = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)

Expected = Callable[[str, str], str]

# Template: the prompt of (query, document) without an instruction.
PLAIN: dict[str, Expected] = {
    "vllm/qwen3-reranker": lambda q, d: f"{JUDGE}<Instruct>: {WEB}\n<Query>: {q}\n<Document>: {d}{THINK}",
    "sglang/qwen3-reranker": lambda q, d: f"{JUDGE}<Instruct>: {WEB}\n<Query>: {q}\n<Document>: {d}{THINK}",
    "vllm/qwen3-vl-reranker": lambda q, d: f"{JUDGE}<Instruct>: {CANDIDATES}<Query>:{q}\n<Document>:{d}{ASSISTANT}",
    "sglang/qwen3-vl-reranker": lambda q, d: f"{JUDGE}<Instruct>: {CANDIDATES}<Query>:{q}\n<Document>:{d}{ASSISTANT}",
    "vllm/mxbai-rerank-v2": lambda q, d: f"{MXBAI_SYSTEM}query: {q}\ndocument: {d}\n{MXBAI_TASK}{ASSISTANT}",
    "vllm/zerank": lambda q, d: f"<|im_start|>system\n{q}<|im_end|>\n<|im_start|>user\n{d}{ASSISTANT}",
    "vllm/ctxl-rerank-v2": lambda q, d: f"{CTXL}<Document> {d}\n<Query> {q} ??",
    "vllm/bge-reranker-v2-gemma": lambda q, d: f"A: {q}\nB: {d}\n{GEMMA}",
    "vllm/llama-nemotron-rerank": lambda q, d: f"question:{q} \n \n passage:{d}",
}

# Template: the prompt of (query, document, instruction). Those that are missing take none.
INSTRUCTED: dict[str, Callable[[str, str, str], str]] = {
    "vllm/qwen3-reranker": lambda q, d, i: f"{JUDGE}<Instruct>: {i}\n<Query>: {q}\n<Document>: {d}{THINK}",
    "sglang/qwen3-reranker": lambda q, d, i: f"{JUDGE}<Instruct>: {i}\n<Query>: {q}\n<Document>: {d}{THINK}",
    "vllm/qwen3-vl-reranker": lambda q, d, i: f"{JUDGE}<Instruct>: {i}<Query>:{q}\n<Document>:{d}{ASSISTANT}",
    "sglang/qwen3-vl-reranker": lambda q, d, i: f"{JUDGE}<Instruct>: {i}<Query>:{q}\n<Document>:{d}{ASSISTANT}",
    "vllm/mxbai-rerank-v2": lambda q, d, i: (
        f"{MXBAI_SYSTEM}instruction: {i}\nquery: {q}\ndocument: {d}\n{MXBAI_TASK}{ASSISTANT}"
    ),
    "vllm/zerank": lambda q, d, i: (
        f"<|im_start|>system\n<query>{q}</query>\n<instruction>{i}</instruction><|im_end|>\n"
        f"<|im_start|>user\n{d}{ASSISTANT}"
    ),
    "vllm/ctxl-rerank-v2": lambda q, d, i: f"{CTXL}<Document> {d}\n<Query> {q} {i} ??",
}
TAKES_NONE = sorted(PLAIN.keys() - INSTRUCTED.keys())

PAIRS = [
    ("hi", "doc"),
    ("什么是向量数据库？", "向量数据库按相似度检索。🙂"),
    ("two\nlines\n", "\n\nblank lines around\r\nand a Windows one\n\n"),
    ("  blanks \t", " \n "),
    ("{query} {document} {0} %s", '{"json": [1, {"a": "}}"}]}'),
    ("{{ 7 * 7 }} {{ messages }}", "{% raw %}{% endif %}{# comment #}{{ raise_exception('no') }}"),
    ("{%- set instruction = 'x' -%}", "a -}} b {{- c"),
    ("\\n \\ ' \"", "<b>&amp; \\u0041 'quoted' \"twice\""),
    ('answer can only be "yes" or "no"', "<image> <|vision_start|>"),
    ("", ""),
]
INSTRUCTIONS = ["Find passages.", "找出相关段落。\n第二行", "{{ 7 * 7 }} {% if %} {instruction} \\n <b>&\"'"]


def refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def as_vllm(name: str, query: str, document: str, **asked: str) -> str:
    """The file as it is, compiled by transformers; of what a request asks, only what the template names is passed."""
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    named = meta.find_undeclared_variables(environment.parse(source))
    return environment.from_string(source).render(
        messages=[{"role": "query", "content": query}, {"role": "document", "content": document}],
        tools=None,
        documents=None,
        add_generation_prompt=False,
        bos_token="<s>",  # the tokenizer's own
        eos_token="</s>",
        **{key: value for key, value in asked.items() if key in named},
    )


def as_sglang(name: str, query: str, document: str, instruct: str | None = None) -> str:
    """The file without newlines at either end, its backslash-n made newlines; blocks keep the newlines after them."""
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").strip("\n").replace("\\n", "\n")
    environment = ImmutableSandboxedEnvironment(loader=jinja2.BaseLoader(), autoescape=False)
    given: dict[str, Any]
    if "<|vision_start|>" in source:
        given = {"query": [{"type": "text", "text": query}], "document": [{"type": "text", "text": document}]}
    else:
        given = {"messages": [{"role": "user", "content": query}, {"role": "user", "content": document}]}
    return environment.from_string(source).render(**given, **({"instruct": instruct} if instruct else {}))


def render(name: str, query: str, document: str, instruction: str | None = None) -> str:
    if name.startswith("sglang/"):
        return as_sglang(name, query, document, instruction)
    return as_vllm(name, query, document, **({} if instruction is None else {"instruction": instruction}))


def test_every_template_is_tested() -> None:
    files = {path.relative_to(TEMPLATES).with_suffix("").as_posix() for path in TEMPLATES.rglob("*.jinja")}
    assert files == PLAIN.keys()


@pytest.mark.parametrize(("query", "document"), PAIRS)
@pytest.mark.parametrize("name", PLAIN)
def test_without_an_instruction(name: str, query: str, document: str) -> None:
    assert render(name, query, document) == PLAIN[name](query, document)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
@pytest.mark.parametrize(("query", "document"), PAIRS)
@pytest.mark.parametrize("name", INSTRUCTED)
def test_with_an_instruction(name: str, query: str, document: str, instruction: str) -> None:
    assert render(name, query, document, instruction) == INSTRUCTED[name](query, document, instruction)


@pytest.mark.parametrize("name", INSTRUCTED)
def test_an_empty_instruction_is_none(name: str) -> None:
    assert render(name, "hi", "doc", "") == PLAIN[name]("hi", "doc")


@pytest.mark.parametrize("name", TAKES_NONE)
def test_an_instruction_that_has_no_place_is_refused(name: str) -> None:
    with pytest.raises(jinja2.TemplateError, match="no place for an instruction"):
        render(name, "hi", "doc", "Find passages.")


@pytest.mark.parametrize("name", ["vllm/qwen3-reranker", "vllm/qwen3-vl-reranker"])
def test_sglangs_name_of_the_instruction_works_on_vllm_too_as_with_its_own_template(name: str) -> None:
    told = INSTRUCTED[name]("hi", "doc", "Find passages.")
    assert as_vllm(name, "hi", "doc", instruct="Find passages.") == told
    assert as_vllm(name, "hi", "doc", instruct="other", instruction="Find passages.") == told


@pytest.mark.parametrize("name", PLAIN)
def test_the_catalogue_says_the_same(name: str) -> None:
    known = family(name.partition("/")[2], "reranker")
    plain = frame(known)
    assert plain is not None
    assert plain.full("hi", "doc") == render(name, "hi", "doc")
    if known.takes_instruction:
        told = frame(known, "Find passages.")
        assert told is not None
        assert told.full("hi", "doc") == render(name, "hi", "doc", "Find passages.")


def test_images_and_videos_stand_where_they_were_given() -> None:
    source = (TEMPLATES / "sglang/qwen3-vl-reranker.jinja").read_text(encoding="utf-8").strip("\n")
    prompt = (
        ImmutableSandboxedEnvironment()
        .from_string(source.replace("\\n", "\n"))
        .render(
            query=[{"type": "image"}, {"type": "text", "text": " 这是什么？\n"}],
            document=[{"type": "text", "text": "a film"}, {"type": "video"}, {"type": "text", "text": "of it"}],
        )
    )
    assert prompt == (
        f"{JUDGE}<Instruct>: {CANDIDATES}<Query>:<|vision_start|><|image_pad|><|vision_end|> 这是什么？\n\n"
        f"<Document>:a film<|vision_start|><|video_pad|><|vision_end|>of it{ASSISTANT}"
    )


def test_sglang_knows_its_templates_by_these_words() -> None:
    for name in ("sglang/qwen3-reranker", "sglang/qwen3-vl-reranker"):
        source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
        assert 'answer can only be "yes" or "no"' in source
        assert ("<|vision_start|>" in source) == ("vl" in name)


@pytest.mark.parametrize("name", PLAIN)
def test_editors_cannot_change_a_prompt(name: str) -> None:
    """No blank ends a line, and one newline ends the file: what linters strip or add is not part of the prompt."""
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    assert source.endswith("\n")
    assert not source.endswith("\n\n")
    assert not any(line.endswith((" ", "\t", "\r")) for line in source.split("\n"))
