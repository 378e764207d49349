"""Facts to findings: what is wrong, why it matters, what mends it. Pure.

Problems come first. A server with warnings and notes only is in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from ragpair.dialects.base import Task, Vectors, numbers
from ragpair.doctor.cures import cure, template_flag
from ragpair.doctor.values import Checkup, Failure, Finding

_SAME_DIRECTION = 0.999  # cosine; float16 against float32, or another batch, is 0.99999
_SAME_SCORE = 0.02
_UNIT = 1e-3
_ENOUGH = 5 / 6  # of the pairs of a language: by guessing, a reranker gets there once in nine times

_SINCE = {"vllm": (0, 11), "sglang": (0, 5, 8), "ollama": (0, 12, 11)}

# What the core says, and why it matters; the first that fits.
_WHYS = (
    (
        "uninitialised|classifier_from_token",
        "The server looks healthy, but no trained reranker is in it: rankings made with it are noise, or there are "
        "none. Guides copy this launch from each other.",
    ),
    ("radix cache", "The same text gets different vectors, and the first rerank ends the server for everybody."),
    ("every vector would be wrong", "Searches find the wrong texts, and no error ever shows."),
    (
        "vectors would be garbage|embedding requests to it with garbage",
        "Searches find texts at random, with status 200.",
    ),
    ("200 and meaningless numbers", "Rankings would mean nothing, and no error would ever show."),
    ("no probabilities", "A threshold on such scores means nothing, and they rank worse than a reranker's."),
    ("wants an API key", "Nothing else can be seen without it."),
    ("several models", "It is not clear which of them is meant."),
    ("web page|not recognised|no model server|is not JSON|redirects", "There is nothing to embed or rerank with."),
    ("is overloaded or still starting", "Nothing can be said of a server that is so busy."),
    ("answered 200 with", "That is not what was asked for: a proxy, or another engine, may answer here."),
    ("gave no answer", "The server died or was cut off while it was asked; its log tells."),
)
_GRAVE_CAUTION = re.compile("close to random|kills the server|hardly is a")
# Where the core says what to type, and nothing more is known of the model.
_SAID = (
    (re.compile(r"\s*Launch: (vllm serve [^\n]+)$"), "{}"),
    (re.compile(r"\s*(?:If it is one, l|L)aunch (?:it|the server) with (--[^.]+)\.$"), "Add to the launch: {}"),
    (re.compile(r"\s*Start llama-server with (--[a-z-]+)\.?"), "Add to the launch: {}"),
    (re.compile(r"\s*Get (?:it|one) with: (ollama pull [^\n]+)$"), "{}"),
)


def diagnose(checkup: Checkup) -> list[Finding]:
    """What is worth saying of one server, the worst first."""
    found = [*_failures(checkup), *_cautions(checkup), *_embedding(checkup), *_reranking(checkup), *_meaning(checkup)]
    found += [*_limits(checkup), *_access(checkup), *_version(checkup)]
    return sorted(found, key=lambda finding: ("problem", "warning", "note").index(finding.severity))


def agreement(checkups: Sequence[Checkup]) -> list[Finding]:
    """Whether several servers that do the same are replicas of one model; the first is the measure."""
    found: list[Finding] = []
    for task in ("embed", "rerank"):
        same = [one for one in checkups if one.task == task and (one.embedding or one.reranking)]
        for other in same[1:]:
            found += _differences(same[0], other)
    return found


def _differences(first: Checkup, other: Checkup) -> Iterator[Finding]:
    why = "Behind one client, each text would go to either: vectors or scores would depend on chance."
    mend = "Serve the same model, revision and data type at all addresses, under one name."
    if first.model != other.model:
        yield Finding(
            "problem",
            f"{first.url} serves {first.model!r}, {other.url} serves {other.model!r}: as replicas, requests that name "
            "the one fail at the other.",
            why,
            mend,
        )
    if first.embedding and other.embedding:
        if first.embedding.width != other.embedding.width:
            yield Finding(
                "problem",
                f"Vectors of {first.url} have {first.embedding.width} numbers, those of {other.url} "
                f"{other.embedding.width}.",
                why,
                mend,
            )
            return
        nearness = min(map(_cosine, first.embedding.vectors, other.embedding.vectors))
        if nearness < _SAME_DIRECTION:
            yield Finding(
                "problem",
                f"The same text has different vectors at {first.url} and {other.url} (cosine {nearness:.4f}).",
                why,
                mend,
            )
    if first.reranking and other.reranking:
        gap = float(np.abs(np.subtract(first.reranking.scores, other.reranking.scores)).max())
        if gap > _SAME_SCORE:
            yield Finding(
                "problem",
                f"The same pair scores differently at {first.url} and {other.url} (by {gap:.3f}).",
                why,
                mend,
            )


# --- what the core says ----------------------------------------------------------------------------------------------


def _failures(checkup: Checkup) -> Iterator[Finding]:
    if checkup.absent is not None:
        waits = "--wait 300 waits for a server that is still loading its model." if checkup.absent == "loading" else ""
        yield Finding("problem", str(checkup.failures[0].error), "Nothing can be checked.", waits)
        return
    told = {str(failure.error): failure for failure in checkup.failures}.values()  # both tasks may fail alike
    for number, failure in enumerate(sorted(told, key=_rank)):
        yield _failure(checkup, failure, first=number == 0, alone=len(told) == 1)


def _rank(failure: Failure) -> int:
    """Known causes first: what else was tried with the model failed for want of a better idea of it."""
    said = str(failure.error)
    return next((number for number, (words, _) in enumerate(_WHYS) if re.search(words, said)), len(_WHYS))


def _failure(checkup: Checkup, failure: Failure, *, first: bool, alone: bool) -> Finding:
    what, mends = str(failure.error), ""
    for pattern, form in _SAID:
        if found := pattern.search(what):
            mends = form.format(found[1])
            what = what[: found.start()] if found.end() == len(what) else what
            break
    if mends or re.search("[Ll]aunch|Serve |Start ", what):
        mends = _launch(checkup, failure.task) or mends
    if not alone:
        what = f"As {'an embedding model' if failure.task == 'embed' else 'a reranker'}: {what}"
    known = _rank(failure)
    why = _WHYS[known][1] if known < len(_WHYS) else f"It cannot be used to {failure.task or 'embed or rerank'} so."
    return Finding("problem" if first else "note", what, why, mends)


def _launch(checkup: Checkup, task: Task | None) -> str:
    """The launch of a model that is known; whether another is what it is taken for, nobody can say."""
    if checkup.family is None:
        return ""
    path = checkup.source if "/" in checkup.source else ""  # SGLang tells an alias first
    return cure(checkup.engine, task, checkup.family, path or checkup.repo)


def _cautions(checkup: Checkup) -> Iterator[Finding]:
    for caution in checkup.cautions:
        grave = bool(_GRAVE_CAUTION.search(caution))
        mends = _launch(checkup, checkup.task) if "aunch it with" in caution else ""
        yield Finding("problem" if grave else "warning", caution, cure=mends)


# --- vectors ---------------------------------------------------------------------------------------------------------


def _embedding(checkup: Checkup) -> Iterator[Finding]:
    facts = checkup.embedding
    if facts is None:
        return
    launch = _launch(checkup, checkup.task)
    again = _cosine(facts.vectors[0], facts.vectors[-1])
    if again < _SAME_DIRECTION:
        yield Finding(
            "problem",
            f"One text, sent twice, got two vectors (cosine {again:.4f}).",
            "A text is not found by its own words. SGLang does this to encoders when the radix cache is on.",
            launch,
        )
    told = ("cls", "mean", "last")
    if facts.pooling in told and checkup.model_pooling in told and facts.pooling != checkup.model_pooling:
        yield Finding(
            "problem",
            f"The server pools by {facts.pooling!r}; the model's authors trained it for {checkup.model_pooling!r}.",
            "Every vector is wrong: searches find the wrong texts, and no error ever shows.",
            launch or "Take a file of the model that was converted with its own pooling.",
        )
    if checkup.model_width and facts.width != checkup.model_width:
        yield Finding(
            "warning",
            f"Vectors have {facts.width} numbers; those of {checkup.repo} have {checkup.model_width}.",
            "Another model goes by this name, or the server cuts vectors.",
        )
    norms = np.linalg.norm(facts.vectors, axis=1)
    if np.abs(norms - 1).max() > _UNIT:
        yield Finding(
            "note",
            f"The server does not normalise (lengths from {norms.min():.2f} to {norms.max():.2f}).",
            "ragpair does. Other clients must, or compare by cosine: by dot product, long vectors always win.",
        )


def _cosine(one: Vectors, other: Vectors) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


# --- scores ----------------------------------------------------------------------------------------------------------


def _reranking(checkup: Checkup) -> Iterator[Finding]:
    facts = checkup.reranking
    if facts is None or facts.template is None or facts.template == "card":
        return
    flag = template_flag(checkup.engine, checkup.family)
    mends = f"For such clients, add to the launch: {flag}" if flag else ""
    if facts.template == "none":
        yield Finding(
            "note",
            "The server has no template; ragpair writes the model card's prompt itself.",
            "Clients that call the server's own rerank route get scores of bare text, close to random, or an error.",
            mends,
        )
        return
    pairs = ", ".join(f"{own:.3f} for {right:.3f}" for own, right in zip(facts.own_scores, facts.scores, strict=True))
    yield Finding(
        "warning",
        f"The server's template is not the model card's prompt: it scores {pairs}.",
        "ragpair goes past it and is not affected. Clients that call the server's own rerank route are.",
        mends,
    )


def _meaning(checkup: Checkup) -> Iterator[Finding]:
    """Whether relevant texts come before irrelevant ones at all."""
    poor = {name: one for name, one in checkup.separates.items() if one.right / one.of < _ENOUGH}
    if not poor:
        return
    counted = ", ".join(f"{one.right} of {one.of} in {name!r}" for name, one in checkup.separates.items())
    if len(poor) == len(checkup.separates):
        yield Finding(
            "problem",
            f"The model does not tell relevant from irrelevant: the right text came first for {counted}.",
            "Vectors or scores carry no meaning: the wrong weights, a broken conversion, or another model's prompt.",
            "Compare with the original weights; if the model's family was not found, name it with --family.",
        )
        return
    yield Finding(
        "note",
        f"The right text came first for {counted}.",
        f"The model may not know the language {', '.join(map(repr, poor))}.",
    )


# --- the server ------------------------------------------------------------------------------------------------------


def _limits(checkup: Checkup) -> Iterator[Finding]:
    if checkup.limit and checkup.model_limit and checkup.limit < checkup.model_limit // 2:
        flags = {
            "vllm": "--max-model-len",
            "sglang": "--context-length",
            "ollama": "num_ctx and num_batch (PARAMETER lines of a Modelfile)",
            "llamacpp": "-c, -b and -ub",
        }
        yield Finding(
            "note",
            f"One input may have {checkup.limit} tokens here; the model itself takes {checkup.model_limit}.",
            "Longer texts are refused, or cut if you ask for it.",
            f"Raise it with {flags[checkup.engine]}, if there is memory for it." if checkup.engine in flags else "",
        )


def _access(checkup: Checkup) -> Iterator[Finding]:
    opened = [path for path, access in checkup.access.items() if access == "open"]
    if not checkup.has_key or not opened:
        return
    if len(opened) == len(checkup.access):
        yield Finding("note", "A key was given, but the server asks nobody for one.")
        return
    yield Finding(
        "warning",
        f"These routes want no key: {', '.join(opened)}.",
        "Whoever reaches the port can use the model. vLLM's --api-key guards what begins with /v1 only."
        if checkup.engine == "vllm"
        else "Whoever reaches the port can use them.",
        "Put a proxy in front that lets through what carries the key.",
    )


def _version(checkup: Checkup) -> Iterator[Finding]:
    least = _SINCE.get(checkup.engine)
    version = numbers(checkup.version.partition("-")[0])[:3]
    if least is not None and any(version) and version < least:
        yield Finding(
            "warning",
            f"{checkup.engine} {checkup.version} is older than {'.'.join(map(str, least))}.",
            "ragpair is made for that version and newer; some routes are missing or behave otherwise.",
            "Update the engine.",
        )
