"""Facts per model family: prompts, pooling, widths, score scale. Looked up by exact name, never by resemblance.

`catalog.json` holds one object per family; `evidence` and `sources` say where its strings were read. Models of a family
may differ in single facts, which stand beside the model. Looking a model up resolves them: the family inside a `Match`
is already the one of that model, so nobody downstream asks for a model's facts twice.

Two generations of one brand often want different prompts, so a name is known or it is not: "jina" and "arctic" are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar, overload

import orjson

from ragpair.errors import ConfigurationError

Kind = Literal["embedding", "multi-vector", "reranker"]
Evidence = Literal["card", "code", "memory"]
Pooling = Literal["cls", "mean", "last", "other"]
Framing = Literal["pair", "frame", "server", "unknown"]
ScoreKind = Literal["logit", "probability", "cosine", "maxsim", "rank"]
ServedScore = Literal["logit", "probability", "sigmoid", "cosine", "maxsim", "rank"]


@dataclass(frozen=True, slots=True)
class Model:
    """One repository.

    Attributes:
        repo: Exact id on the Hugging Face hub.
        dims: Native width of its vectors, where known.
        max_tokens: Longest input that the model takes, where known; a server may be set lower.
    """

    repo: str
    dims: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Matryoshka:
    """Widths that a vector may have.

    Attributes:
        dims: Trained widths; empty if every width from `min` on is.
        min: Least width, if any width from here to the native one will do.
        layer_norm: The card normalises the full vector by layer-norm before cutting; cut and L2 is close, not equal.
        learned: Each width has weights of its own: only the server can make it, and cutting is wrong.
        evidence: "memory" if the widths were not read anywhere.
    """

    dims: tuple[int, ...] = ()
    min: int | None = None
    layer_norm: bool = False
    learned: bool = False
    evidence: Evidence = "code"

    def can_cut(self, width: int) -> bool:
        """Whether cutting a wider vector to `width` and normalising again gives a vector of this model."""
        return not self.learned and (width in self.dims or (self.min is not None and width >= self.min))


@dataclass(frozen=True, slots=True)
class Score:
    """What the numbers of a reranker mean.

    Attributes:
        native: The scale that the model's authors define.
        shift: Of the authors' activation: probability = sigmoid((logit - shift) / scale).
        scale: See `shift`.
        vllm: What vLLM returns unless asked otherwise, where known. "probability" is the authors' own; "sigmoid" is
            the bare sigmoid(logit), still without `shift` and `scale`.
        sglang: The same for SGLang.
    """

    native: ScoreKind
    shift: float = 0.0
    scale: float = 1.0
    vllm: ServedScore | None = None
    sglang: ServedScore | None = None


@dataclass(frozen=True, slots=True)
class FrameText:
    """Template of the text that a reranker reads: two halves where it can be split, else the whole.

    Attributes:
        query_side: First half, with {query}.
        document_side: Second half, with {document}.
        full: The whole, with both; only if it cannot be split after the query.
        pieces: The same text as the authors' code tokenizes it: piece by piece, so that no token reaches over a seam,
            and with the special token before it that a tokenizer adds by itself. Empty if they tokenize the whole.
    """

    query_side: str = ""
    document_side: str = ""
    full: str = ""
    pieces: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.full or self.query_side + self.document_side


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What models of one family share.

    Attributes:
        id: Name of the family, such as "qwen3-embedding".
        kind: "embedding", "multi-vector" or "reranker".
        models: The repositories.
        ollama: Names in the Ollama library.
        instruction: Default instruction, or None.
        instruction_rule: "full-stop": stripped, and a "." is added unless it ends in punctuation.
        special_tokens: Strings that the tokenizer would read as control tokens if they stood in a user's text. Common
            ones of the vocabulary, from memory: no tokenizer file was read for them.
        evidence: Where the prompts were read: the authors' "card" or code, others' "code", or only from "memory".
        sources: The places.
        note: One line that a user should know.
    """

    id: str
    kind: Kind
    models: tuple[Model, ...]
    ollama: tuple[str, ...] = ()
    instruction: str | None = None
    instruction_rule: Literal["full-stop"] | None = None
    special_tokens: tuple[str, ...] = ()
    evidence: Evidence
    sources: tuple[str, ...] = ()
    note: str = ""

    @property
    def takes_instruction(self) -> bool:
        """Whether the user may set an instruction."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingFamily(Family):
    """An embedding model.

    Attributes:
        query: Template of a query, with {text} and perhaps {instruction}. None if no template can say it, or if the
            models differ and none was named.
        document: Template of a document, likewise.
        document_with_title: Template of a document with {title}.
        pooling: How token states become one vector, where known.
        normalize: Whether the checkpoint makes the server normalise, where known. Doing it again is harmless.
        matryoshka: Widths that vectors may be cut to; None if cutting is not known to be safe.
        eos: Whether the vector is read at the last token, so that the right one must stand there.
    """

    query: str | None = None
    document: str | None = None
    document_with_title: str | None = None
    pooling: Pooling | None = None
    normalize: bool | None = None
    matryoshka: Matryoshka | None = None
    eos: bool = False

    @property
    def takes_instruction(self) -> bool:
        """Whether the query has a place for one."""
        return "{instruction}" in (self.query or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerFamily(Family):
    """A reranker.

    Attributes:
        type: "cross-encoder", "yes-no" (a causal LM judged by the logits of one or two tokens), "listwise" (a score
            depends on the other documents of the request) or "other".
        framing: Who writes the prompt. "pair": nobody, the tokenizer joins plain query and document. "frame": `frame`
            is the exact text. "server": the engine, from plain query and document. "unknown": the exact text is not
            known or is not that of one pair; only a template on the server can do it.
        frame: The template, if `framing` is "frame".
        frame_with_instruction: The template to use with an instruction, where it is another.
        true_token: The token whose logit speaks for the document.
        false_token: The token against it, where there is one.
        true_token_id: Id of `true_token`, where known.
        false_token_id: Id of `false_token`, where known.
        score: What its numbers mean.
        instruction_field: The engine builds the prompt and takes the instruction as a field of the request.
        llamacpp_wrong: llama.cpp drops a layer of this model and ranks wrongly.
    """

    type: Literal["cross-encoder", "yes-no", "listwise", "other"]
    framing: Framing
    score: Score
    frame: FrameText | None = None
    frame_with_instruction: FrameText | None = None
    true_token: str | None = None
    false_token: str | None = None
    true_token_id: int | None = None
    false_token_id: int | None = None
    instruction_field: bool = False
    llamacpp_wrong: bool = False

    @property
    def takes_instruction(self) -> bool:
        """Whether the frame or the engine has a place for one."""
        return self.instruction_field or "{instruction}" in str(self.frame_with_instruction or self.frame or "")


F_co = TypeVar("F_co", bound=Family, covariant=True)


@dataclass(frozen=True, slots=True)
class Match(Generic[F_co]):
    """A name that is known.

    Attributes:
        family: The family, with the facts of `model` if that is known.
        model: The repository, or None if only the family is sure (an Ollama name without its size).
    """

    family: F_co
    model: Model | None = None

    @property
    def repo(self) -> str | None:
        """Id of the repository."""
        return self.model.repo if self.model else None

    @property
    def dims(self) -> int | None:
        """Native width."""
        return self.model.dims if self.model else None

    @property
    def max_tokens(self) -> int | None:
        """Longest input."""
        return self.model.max_tokens if self.model else None


@overload
def find(*names: str | None, kind: Literal["embedding", "multi-vector"]) -> Match[EmbeddingFamily] | None: ...
@overload
def find(*names: str | None, kind: Literal["reranker"]) -> Match[RerankerFamily] | None: ...
@overload
def find(*names: str | None, kind: Kind | None = None) -> Match[Family] | None: ...
def find(*names: str | None, kind: Kind | None = None) -> Match[Any] | None:
    """Looks a served model up by the names that it goes by, ignoring case.

    An exact repository id wins over an Ollama name, and that over the last part of a path, whichever of `names` it is.

    Args:
        names: What user and server call the model: repository, alias, Ollama tag, folder. None and "" are skipped.
        kind: Only families of this kind.

    Returns:
        The match, or None if no name is known or a name could be two models.
    """
    known = _load()
    given = [_undo_hub_cache(name).casefold() for name in names if name]
    for table, spellings in ((known.repos, _itself), (known.tags, _tags), (known.bases, _bases)):
        for name in given:
            for spelling in spellings(name):
                match = table.get(spelling)
                if match and kind in (None, match.family.kind):
                    return match
    return None


def families() -> Mapping[str, Family]:
    """All families by id, in the order of the file."""
    return _load().families


@overload
def family(name: str, kind: Literal["embedding", "multi-vector"]) -> EmbeddingFamily: ...
@overload
def family(name: str, kind: Literal["reranker"]) -> RerankerFamily: ...
@overload
def family(name: str, kind: Kind | None = None) -> Family: ...
def family(name: str, kind: Kind | None = None) -> Any:
    """The family of this id, or that of a repository if its exact id is given (with the facts of that model).

    Raises:
        ConfigurationError: There is none, or none of this kind; the message suggests the nearest names.
    """
    known = _load()
    match = known.repos.get(name.casefold())
    found = match.family if match else known.families.get(name.casefold())
    if found is None:
        from difflib import get_close_matches  # late: only for this message

        near = get_close_matches(name.casefold(), [*known.families, *known.repos], n=3)
        near = near or [one for one, family in known.families.items() if name.casefold() in one and family.kind == kind]
        names = [known.repos[one].repo if one in known.repos else one for one in near]
        hint = f"Did you mean {', '.join(map(repr, names))}?" if names else "`ragpair models` lists all."
        raise ConfigurationError(f"No model family is called {name!r}. {hint}")
    if kind not in (None, found.kind):
        raise ConfigurationError(f"{name!r} is of kind {found.kind!r}, but a model of kind {kind!r} is needed here.")
    return found


@dataclass(frozen=True, slots=True)
class _Catalogue:
    families: Mapping[str, Family]
    repos: Mapping[str, Match[Family]]
    tags: Mapping[str, Match[Family]]
    bases: Mapping[str, Match[Family] | None]  # None: two repositories end alike


@cache
def _load() -> _Catalogue:
    file = orjson.loads(Path(__file__).with_name("catalog.json").read_bytes())
    vocabularies: dict[str, list[str]] = file["vocabularies"]
    all_families: dict[str, Family] = {}
    repos: dict[str, Match[Family]] = {}
    tags: dict[str, Match[Family]] = {}
    bases: dict[str, Match[Family] | None] = {}
    for row in file["families"]:
        one = all_families[row["id"]] = _family(row, vocabularies)
        for model, own in zip(one.models, row["models"].values(), strict=True):
            match = repos[model.repo.casefold()] = Match(_family(_merge(row, own), vocabularies), model)
            base = model.repo.rpartition("/")[2].casefold()
            bases[base] = None if base in bases else match
        for tag, repo in row.get("ollama", {}).items():
            tags[tag] = repos[repo.casefold()] if repo else Match(one)
    return _Catalogue(MappingProxyType(all_families), repos, tags, bases)


def _family(row: dict[str, Any], vocabularies: dict[str, list[str]]) -> Family:
    """Makes the value of one row; keys of the file are the names of the fields."""
    cls = RerankerFamily if row["kind"] == "reranker" else EmbeddingFamily
    own = {field.name for field in fields(cls)}
    facts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    facts["models"] = tuple(Model(repo, m.get("dims"), m.get("max_tokens")) for repo, m in row["models"].items())
    facts["ollama"] = tuple(row.get("ollama", ()))
    facts["special_tokens"] = tuple(vocabularies[facts.pop("vocabulary")]) if "vocabulary" in row else ()
    if row.get("matryoshka"):
        facts["matryoshka"] = Matryoshka(**{**row["matryoshka"], "dims": tuple(row["matryoshka"].get("dims", ()))})
    if row["kind"] == "reranker":
        facts["score"] = Score(**row["score"])
        for key in ("frame", "frame_with_instruction"):
            if key in row:
                text = {**row["frame"], **row[key]}
                facts[key] = FrameText(**{**text, "pieces": tuple(text.get("pieces", ()))})
    unknown = facts.keys() - own - {"dims", "max_tokens"}
    assert not unknown, f"{row['id']}: no such facts: {unknown}"
    return cls(**{key: value for key, value in facts.items() if key in own})


def _merge(row: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The row with a model's own facts; an object such as `score` is overridden key by key."""
    inner = {key: {**row[key], **own[key]} for key in own if isinstance(row.get(key), dict) and own[key]}
    return {**row, **own, **inner}


def _undo_hub_cache(name: str) -> str:
    """`.../models--Qwen--Qwen3-Embedding-0.6B/snapshots/<hash>` is a repository under another spelling."""
    cached = re.search(r"(?:^|[/\\])models--([^/\\]+?)--([^/\\]+)", name)
    return f"{cached[1]}/{cached[2]}" if cached else name.strip()


def _itself(name: str) -> Iterator[str]:
    yield name


def _tags(name: str) -> Iterator[str]:
    """Ollama tags read size, then variant and quantisation: "0.6b-q8_0" is a "0.6b"."""
    bare, _, tag = name.partition(":")
    yield name
    yield f"{bare}:{tag.partition('-')[0]}"
    yield bare


def _bases(name: str) -> Iterator[str]:
    """The last part of a path without tag, then without each ending that GGUF packers append to a model's name."""
    base, shorter = "", re.split(r"[/\\]", name.rstrip("/\\"))[-1].partition(":")[0]
    while shorter != base:
        base = shorter
        yield base
        shorter = re.sub(r"[-.](i?q\d\w*|b?f16|f32|gguf)$", "", base)
