"""What the user, the catalogue and the server say together: whose prompts, which widths, which scores. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ragpair import catalog
from ragpair.catalog import EmbeddingFamily, Match, RerankerFamily
from ragpair.dialects.base import Dialect, ScoreWish, Served, numbers
from ragpair.dialects.vllm import Vllm
from ragpair.errors import ConfigurationError
from ragpair.flows import Cut
from ragpair.options import EmbedDtype
from ragpair.prompts import Prompt, Side, embedding_prompt, frame, user_prompt

_EMBED_DTYPE_SINCE = (0, 13)


def embedding_match(family: str | None, model: str | None, served: Served) -> Match[EmbeddingFamily] | None:
    """The family that the user named, or that the model's names tell; None if neither.

    Raises:
        ConfigurationError: No such family, or the model is known as a reranker.
    """
    if family is None:
        return None
    known = catalog.find(model, *served.names, kind="embedding")
    if family != "auto":
        named = catalog.family(family, "embedding")
        return Match(named, known.model if known and known.family.id == named.id else None)
    other = catalog.find(model, *served.names, kind="reranker")
    if known is None and other is not None and served.kind != "embed":
        raise ConfigurationError(
            f"{served.model!r} is a reranker ({other.family.id}), not an embedding model. Pass the address of an "
            "embedding model here, and this one to the reranker."
        )
    return known


def reranker_match(family: str | None, model: str | None, served: Served) -> Match[RerankerFamily] | None:
    """The same for rerankers."""
    if family is None:
        return None
    known = catalog.find(model, *served.names, kind="reranker")
    if family != "auto":
        return known if known and known.family.id == family else Match(catalog.family(family, "reranker"))
    other = catalog.find(model, *served.names, kind="embedding")
    if known is None and other is not None and served.kind != "rerank":
        raise ConfigurationError(
            f"{served.model!r} is an embedding model ({other.family.id}), not a reranker. Pass the address of a "
            "reranker; family=None and scores='raw' sort by its cosines all the same, where the engine gives them."
        )
    return known


def prompt(match: Match[EmbeddingFamily] | None, side: Side, own: str | None, instruction: str | None) -> Prompt:
    """The user's own prompt, or the family's, or none.

    Raises:
        ConfigurationError: An instruction without a place for it.
    """
    if own is not None:
        return user_prompt(own, instruction if "{instruction}" in own else None)
    if match is not None:
        return embedding_prompt(match.family, side, instruction)
    if instruction is not None:
        raise ConfigurationError(
            "instruction= was given, but the model's family is not known, so there is no place to put it. Name the "
            "family=, or pass a query_prompt= with {instruction}."
        )
    return Prompt()


def embedding_cautions(match: Match[EmbeddingFamily] | None, served: Served, *, own_prompts: bool) -> Iterator[str]:
    """What the user should hear about the prompts."""
    if own_prompts:
        return
    if match is None:
        yield (
            f"{served.model!r} is not in the catalogue, so texts are sent as they are. If the model wants prompts, its "
            "vectors are worse without: name its family= (`ragpair models` lists them), or pass query_prompt= and "
            "document_prompt=. family=None says that it wants none."
        )
    elif match.family.evidence == "memory":
        yield (
            f"The prompts of {match.family.id!r} are unverified (nobody could read its card): compare them with the "
            "model's card. query_prompt= and document_prompt= replace them."
        )


def check_pooling(match: Match[EmbeddingFamily] | None, served: Served) -> None:
    """Refuse an engine that pools against what the model was trained for.

    Raises:
        ConfigurationError: It does.
    """
    wanted = match.family.pooling if match else None
    if served.pooling in ("cls", "mean", "last") and wanted in ("cls", "mean", "last") and served.pooling != wanted:
        raise ConfigurationError(
            f"{served.engine} pools {served.model!r} by {served.pooling!r}, but its authors trained it for {wanted!r}: "
            "every vector would be wrong. Serve it with vLLM or Ollama."
        )


def travelling(dialect: Dialect, served: Served, embed_dtype: EmbedDtype) -> Dialect:
    """The dialect for vectors that travel in this precision.

    Raises:
        ConfigurationError: The engine sends no other than float32.
    """
    if embed_dtype == "float32":
        return dialect
    if not isinstance(dialect, Vllm):
        raise ConfigurationError(
            f"embed_dtype={embed_dtype!r} needs vLLM 0.13 or newer; {dialect.name} sends float32 only. Leave it out."
        )
    if served.version and numbers(served.version)[:2] < _EMBED_DTYPE_SINCE:
        raise ConfigurationError(
            f"embed_dtype={embed_dtype!r} needs vLLM 0.13 or newer, and this is {served.version}. Leave it out."
        )
    known = catalog.find(*served.names, kind="embedding")
    return replace(dialect, embed_dtype=embed_dtype, width=known.dims if known else None)


def widths(
    dimensions: int | None, match: Match[EmbeddingFamily] | None, dialect: Dialect, served: Served
) -> tuple[int | None, Cut | None]:
    """What to ask the server for, and what to cut here: known models are cut here, the same on every engine.

    Raises:
        ConfigurationError: The model was not trained to be cut to that width, or nobody knows.
    """
    if dimensions is None:
        return None, None
    if match is None:
        if dialect.checks_dimensions:
            return dimensions, None
        raise ConfigurationError(
            f"It is not known whether vectors of {served.model!r} may be cut to {dimensions} numbers, and "
            f"{dialect.name} does not check it. Name the family=."
        )
    rule = match.family.matryoshka
    if dimensions == match.dims:
        return None, Cut(dimensions)
    if rule is None or not rule.can_cut(dimensions):
        cure = "Leave dimensions out."
        if rule is not None and not rule.learned:
            cure = f"They may be cut to {rule.dims or f'{rule.min} and more'}."
        raise ConfigurationError(
            f"Vectors of {match.repo or match.family.id!r} cannot be cut to {dimensions} numbers. {cure}"
        )
    return None, Cut(dimensions, rule.layer_norm)


def wish(
    match: Match[RerankerFamily] | None, served: Served, instruction: str | None, *, raw: bool, declared: bool = False
) -> ScoreWish:
    """What to ask of the dialect.

    Raises:
        ConfigurationError: An instruction without a place for it, or a family that gives no scores.
    """
    if match is None:
        if instruction is not None and served.engine == "local":
            raise ConfigurationError("The embedded reranker takes no instruction. Leave instruction out.")
        if instruction is not None and served.kind != "decide":
            raise ConfigurationError(
                "instruction= was given, but the model's family is not known, so there is no place to put it. Name "
                "the family=."
            )
        return ScoreWish(instruction=instruction, raw=raw, declared=declared)
    if match.family.score.native == "rank":
        raise ConfigurationError(f"{match.family.id!r} models order lists and give no scores; they are not supported.")
    return ScoreWish(match.family, frame(match.family, instruction), instruction, raw)


def reranker_cautions(match: Match[RerankerFamily] | None) -> Iterator[str]:
    """What the user should hear about the facts that scores rest on."""
    if match is not None and match.family.evidence == "memory":
        yield f"The facts of {match.family.id!r} are unverified: compare its scores with the model's card."
