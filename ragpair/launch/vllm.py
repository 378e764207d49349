"""The rules of vLLM: what `vllm serve` must be told so that the server is the one that is wanted.

An LLM that embeds or reranks is a text generator to vLLM until `--runner pooling` says otherwise, and a reranker among
them has no head until the overrides make one: with half of them the server is healthy and its scores are noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from ragpair.errors import ConfigurationError
from ragpair.launch.subject import Subject
from ragpair.launch.values import Command, Draft, Flag

_TEMPLATE_SINCE = (0, 14)
_POOLER_NAMES_READ_IN = (0, 32)


def draft(subject: Subject) -> Draft:
    """The command.

    Raises:
        ConfigurationError: vLLM, or this version of it, cannot serve the model.
    """
    rule = subject.rule
    if rule.refused:
        raise ConfigurationError(f"vLLM cannot serve {subject.name!r} rightly: {rule.refused}")
    flags = (*_model_flags(subject), *_size_flags(subject))
    template = rule.template if subject.template_dir is not None else ""
    return Draft(Command(("vllm", "serve", subject.name), flags), template=template, cautions=tuple(_cautions(subject)))


def _model_flags(subject: Subject) -> Iterator[Flag]:
    rule = subject.rule
    pools = rule.runner if rule.runner is not None else not subject.facts.encoder
    if pools:
        what = "vectors" if subject.task == "embed" else "scores"
        yield Flag("--runner", "pooling", f"serve {what}; a language model is taken for a text generator otherwise")
    if rule.convert:
        yield Flag("--convert", rule.convert, "the repository does not say that it is an embedding model")
    if overrides := {**rule.overrides, **subject.widths}:
        reasons = [rule.why, "clients may ask for fewer dimensions (ragpair cuts by itself)" * bool(subject.widths)]
        yield Flag("--hf-overrides", _json(overrides), "; ".join(filter(None, reasons)))
    if rule.pooler:
        yield Flag("--pooler-config", _json(rule.pooler), rule.pooler_why)
    if subject.template_dir is not None:
        yield _template(subject, subject.template_dir)
    if rule.trust:
        why = rule.trust_why or "its configuration, tokenizer or network is code of the repository"
        yield Flag("--trust-remote-code", reason=f"{why}; that code runs on your machine, so read it")
    if rule.dtype:
        yield Flag("--dtype", rule.dtype, rule.dtype_why)
    if rule.eager:
        yield Flag("--enforce-eager", reason="its code cannot be captured in CUDA graphs")


def _size_flags(subject: Subject) -> Iterator[Flag]:
    caches = not subject.facts.encoder and subject.facts.body is not None
    if subject.max_tokens is not None and (subject.because or subject.rule.max_tokens or caches):
        why = subject.because or "the longest text of the model card"
        if caches:
            why += "; vLLM starts only if the KV cache holds one such text"
        yield Flag("--max-model-len", str(subject.max_tokens), why)
    if subject.gpus > 1:
        yield Flag(
            "--tensor-parallel-size", str(subject.gpus), f"each of {subject.gpus} GPUs holds a part of the weights"
        )
    if subject.port is not None:
        yield Flag("--port", str(subject.port), "as asked; 8000 by default")


def _template(subject: Subject, folder: str) -> Flag:
    if not subject.rule.template:
        raise ConfigurationError(f"{subject.name!r} needs no chat template on vLLM: leave --write-template out.")
    if subject.version < _TEMPLATE_SINCE:
        raise ConfigurationError(
            "vLLM applies --chat-template to scoring since 0.14; before, only clients that write the prompt, "
            "as ragpair does, score rightly. Leave --write-template out, or take a newer vLLM."
        )
    path = f"{folder.rstrip('/')}/{subject.rule.template}.jinja"
    return Flag("--chat-template", path, "writes the model card's prompt for clients that do not, as ragpair does")


def _cautions(subject: Subject) -> Iterator[str]:
    rule = subject.rule
    if subject.facts.architecture == "":
        own = " (None for a cross-encoder of your own)" if subject.task == "rerank" else ""
        yield (
            f"{subject.name!r} is not in the catalogue: these flags are those of any model. Compare what comes back "
            f"with its card, and tell ragpair its family={own}."
        )
    if rule.unsure:
        yield f"Nobody has checked this launch: {rule.unsure}."
    if rule.caution:
        yield rule.caution
    if rule.template and subject.template_dir is None and subject.version >= _TEMPLATE_SINCE:
        yield (
            "ragpair writes this model's prompt itself. Other clients get scores close to random without one: "
            "--write-template DIR gives the server the template for them."
        )
    if rule.pooler and subject.version < _POOLER_NAMES_READ_IN:
        yield "The names in --pooler-config are those of vLLM 0.32; an older one may call them otherwise."
    if subject.match is not None and subject.match.family.kind == "multi-vector":
        yield (
            'Its scores are sums of cosines, which ragpair takes with scores="raw"; vLLM adds no query or document '
            "marks, so they are not quite the card's."
        )
    yield (
        "vLLM listens on all interfaces, and its --api-key leaves /score, /rerank, /classify and /pooling open: keep "
        "the port private, for instance with --host 127.0.0.1."
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
