"""The rules of SGLang: what `sglang serve` must be told so that the server is right, and stays alive.

Encoders need two flags that SGLang does not set: with the radix cache their vectors are wrong and a rerank kills the
server, with chunked prefill a long batch does. All are pooled by their first token, whatever the repository says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from ragpair.errors import ConfigurationError
from ragpair.launch.subject import Subject
from ragpair.launch.values import Command, Draft, Flag

_ENCODERS = frozenset({"bert", "xlm-roberta"})
_EMBEDDERS = _ENCODERS | {"embeddinggemma", "mistral", "qwen2", "qwen3", "qwen3-vl"}
_GENERATORS = frozenset({"qwen2", "qwen3", "qwen3-vl"})
_BERT_POOLS_FIRST_TOKEN_SINCE = (0, 5, 9)
_KNOWS_ENCODERS_SINCE = (0, 5, 17)


def draft(subject: Subject) -> Draft:
    """The command.

    Raises:
        ConfigurationError: SGLang, or this version of it, cannot serve the model rightly.
    """
    if reason := subject.rule.refused or _refusal(subject):
        raise ConfigurationError(f"SGLang cannot serve {subject.name!r} rightly: {reason}")
    flags = (Flag("--model-path", subject.name), *_model_flags(subject), *_size_flags(subject))
    template = subject.rule.template if subject.template_dir is not None else ""
    return Draft(Command(("sglang", "serve"), flags), template=template, cautions=tuple(_cautions(subject)))


def _refusal(subject: Subject) -> str:
    architecture = subject.facts.architecture
    if not architecture:
        return ""
    instead = f"Serve it with vLLM: ragpair launch {subject.name} --engine vllm"
    if subject.task == "embed" and architecture not in _EMBEDDERS:
        return f"it has no such embedding model ({architecture}). {instead}"
    if subject.task == "rerank" and not (architecture in _ENCODERS or _generates(subject)):
        return f"it has no way to score with such a model ({architecture}). {instead}"
    if subject.match is not None and subject.match.family.kind == "multi-vector":
        return f"it does not compare token vectors. {instead}"
    pooling = subject.embedder.pooling if subject.embedder else None
    if subject.task == "embed" and architecture in _ENCODERS and pooling not in (None, "cls"):
        return f"it pools encoders by their first token, and this one was trained for {pooling!r}. {instead}"
    if subject.task == "embed" and architecture == "bert" and subject.version < _BERT_POOLS_FIRST_TOKEN_SINCE:
        return "before 0.5.9 it pools a BERT by its last token. Take a newer SGLang."
    return ""


def _generates(subject: Subject) -> bool:
    return subject.facts.architecture in _GENERATORS and subject.answers


def _model_flags(subject: Subject) -> Iterator[Flag]:
    rule, architecture = subject.rule, subject.facts.architecture
    encoder, unknown = architecture in _ENCODERS, architecture == ""
    if subject.task == "embed":
        yield Flag("--is-embedding", reason="serve vectors; a language model generates text otherwise")
    elif encoder and subject.version < _KNOWS_ENCODERS_SINCE:
        yield Flag("--is-embedding", reason="before 0.5.17, encoders are run rightly only with it")
    if overrides := subject.widths:
        yield Flag(
            "--json-model-override-args",
            _json(overrides),
            "clients may ask for fewer dimensions (ragpair cuts by itself)",
        )
    if encoder or unknown:
        which = "an encoder's" if encoder else "if this is an encoder, its"
        yield Flag("--disable-radix-cache", reason=f"with it, {which} vectors are wrong, and a rerank kills the server")
        yield Flag("--chunked-prefill-size", "-1", f"in chunks, {which} first long batch kills the server")
    elif subject.task == "rerank":
        yield Flag("--disable-radix-cache", reason="as SGLang's documentation has it for rerankers")
    if encoder:
        yield Flag("--attention-backend", "triton", "the backend that SGLang's documentation names for encoders")
    if rule.trust:
        why = rule.trust_why or "its configuration, tokenizer or network is code of the repository"
        yield Flag("--trust-remote-code", reason=f"{why}; that code runs on your machine, so read it")
    if subject.template_dir is not None:
        yield _template(subject, subject.template_dir)


def _size_flags(subject: Subject) -> Iterator[Flag]:
    if subject.max_tokens is not None and subject.because:
        yield Flag("--context-length", str(subject.max_tokens), subject.because)
    elif subject.max_tokens is not None and subject.facts.architecture == "xlm-roberta":
        yield Flag(
            "--context-length",
            str(subject.max_tokens),
            "the config counts two positions that no text can use: one that long would kill the server",
        )
    if subject.gpus > 1:
        yield Flag("--tp-size", str(subject.gpus), f"each of {subject.gpus} GPUs holds a part of the weights")
    if subject.port is not None:
        yield Flag("--port", str(subject.port), "as asked; 30000 by default")


def _template(subject: Subject, folder: str) -> Flag:
    if not subject.rule.template:
        raise ConfigurationError(f"SGLang takes no chat template for {subject.name!r}: leave --write-template out.")
    path = f"{folder.rstrip('/')}/{subject.rule.template}.jinja"
    return Flag("--chat-template", path, "writes the model card's prompt for clients that do not, as ragpair does")


def _cautions(subject: Subject) -> Iterator[str]:
    rule = subject.rule
    if subject.facts.architecture == "":
        yield (
            f"{subject.name!r} is not in the catalogue: these flags are those of any model. SGLang pools encoders by "
            "their first token; if its card says mean, serve it with vLLM."
        )
    if rule.unsure:
        yield f"Nobody has checked this launch: {rule.unsure}."
    if rule.caution:
        yield rule.caution
    if _generates(subject) and subject.task == "rerank":
        if rule.template and subject.template_dir is None:
            yield (
                "ragpair writes this model's prompt itself. Other clients get errors or the same score for all without "
                "a template: --write-template DIR gives the server ours. Never add --is-embedding."
            )
        if not rule.template:
            yield "Only clients that write the prompt themselves, as ragpair does, can score with it on SGLang."
    if subject.task == "rerank" and subject.facts.architecture in _ENCODERS:
        yield (
            "Send it nothing but reranks: an embedding request in the same batch kills the server. Its own rerank "
            "route gives logits, which ragpair makes probabilities of."
        )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
