"""How much memory a server takes: weights, KV cache, activations, runtime, as a sum that shows its terms.

Weights and KV cache follow from the model's dimensions. Activations are an estimate, the runtime is an allowance, and
both say so. vLLM refuses to start unless the KV cache holds one text of the longest length, so that is what is counted;
more is speed. Encoders keep no KV cache on vLLM; SGLang gives them one all the same, for each batch.
"""

from __future__ import annotations

from math import ceil

from ragpair.launch.facts import Body
from ragpair.launch.subject import Subject
from ragpair.launch.values import GIB, Memory, Term

RUNTIME_GIB = 1.0
_BYTES = 2  # bfloat16 and float16
_GGUF_BITS = 8.5  # Q8_0
_OLLAMA_CONTEXT = 4096  # unless told otherwise, on less than 24 GB
_OLLAMA_PARALLEL = 4  # the reranker's requests that ragpair has in flight


def estimate(subject: Subject, *, bytes_each: float | None = None) -> Memory | None:
    """The sum for each GPU, or None if the number of parameters is not known.

    Args:
        subject: What is launched.
        bytes_each: Bytes of one weight, if it is not the engine's usual.
    """
    facts, share = subject.facts, subject.engine_facts.share
    if facts.parameters is None:
        return None
    terms = [_weights(subject, facts.parameters, bytes_each)]
    unknown = ""
    if facts.body is None:
        unknown = "activations and KV cache: the dimensions of this model are not known here"
    else:
        cached, what = _cached_tokens(subject)
        if cached is None:
            unknown = "the KV cache: how long its texts may be is not known here (--max-tokens)"
        elif cached:
            terms.append(_kv_cache(facts.body, cached, what, subject.gpus))
        terms.append(_activations(facts.body, _tokens_in_flight(subject)))
    terms.append(Term("runtime", RUNTIME_GIB, "CUDA context, graphs and libraries; an allowance"))
    return Memory(tuple(terms), share, unknown)


def _weights(subject: Subject, parameters: int, bytes_each: float | None) -> Term:
    kind = "16 bits"
    if bytes_each is not None:
        kind = f"{bytes_each * 8:g} bits"
    elif subject.engine == "ollama":
        bytes_each, kind = _GGUF_BITS / 8, "8.5 bits, if it is a Q8_0; `ollama list` shows the real size"
    split = f" / {subject.gpus} GPUs" if subject.gpus > 1 else ""
    gib = parameters * (bytes_each or _BYTES) / subject.gpus / GIB
    return Term("weights", gib, f"{_count(parameters)} parameters of {kind}{split}")


def _kv_cache(body: Body, tokens: int, what: str, gpus: int) -> Term:
    heads = ceil(body.kv_heads / gpus)
    gib = tokens * body.layers * 2 * heads * body.head_dim * _BYTES / GIB
    how = f"{tokens:,} tokens ({what}) x {body.layers} layers x 2 x {heads} heads x {body.head_dim} x {_BYTES} bytes"
    return Term("KV cache", gib, how)


def _activations(body: Body, tokens: int) -> Term:
    gib = tokens * (6 * body.hidden + 3 * body.intermediate) * _BYTES / GIB
    how = f"{tokens:,} tokens at a time x (6 x {body.hidden} + 3 x {body.intermediate}) x {_BYTES} bytes; an estimate"
    return Term("activations", gib, how)


def _cached_tokens(subject: Subject) -> tuple[int | None, str]:
    """Tokens in the KV cache at the least, and whose they are; 0 if there is no such cache, None if nobody knows."""
    if subject.engine == "sglang" and subject.facts.encoder:
        return _tokens_in_flight(subject), "one batch"
    if subject.facts.encoder:
        return 0, ""
    if subject.engine == "ollama":
        texts = _OLLAMA_PARALLEL if subject.task == "rerank" else 1
        tokens = subject.max_tokens if subject.because and subject.max_tokens else _OLLAMA_CONTEXT
        return tokens * texts, "four texts" if texts > 1 else "one text"
    return subject.max_tokens, "one text"


def _tokens_in_flight(subject: Subject) -> int:
    """Tokens that the engine computes at once, by its defaults."""
    if subject.engine == "sglang":
        return 16384 if subject.facts.encoder else 8192
    usual = 8192 if subject.engine == "vllm" and (subject.gpu_memory or 0) >= 70 else 2048
    return max(usual, subject.max_tokens or 0) if subject.facts.encoder else usual  # a text of theirs is one piece


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.0f} million"
