"""From a model and an engine to the command: finds the facts, fits the memory, asks the rules of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ragpair import catalog
from ragpair.catalog import Match
from ragpair.errors import ConfigurationError
from ragpair.launch import facts, memory, ollama, sglang, vllm
from ragpair.launch.facts import Body
from ragpair.launch.subject import Subject, find, parse_parameters, parse_version, task_of
from ragpair.launch.values import Draft, Engine, Launch, Memory, Task

_DRAFT: dict[Engine, Callable[[Subject], Draft]] = {"vllm": vllm.draft, "sglang": sglang.draft, "ollama": ollama.draft}
_LENGTHS = (32768, 16384, 8192, 4096, 2048)


def plan(
    model: str,
    engine: Engine,
    *,
    task: Task | None = None,
    version: str | None = None,
    gpus: int = 1,
    gpu_memory: float | None = None,
    max_tokens: int | None = None,
    parameters: str | None = None,
    port: int | None = None,
    template_dir: str | None = None,
) -> Launch:
    """How to start a server of `model`.

    Args:
        model: A repository, a folder, or an Ollama name.
        engine: The engine.
        task: What for; the catalogue knows it of its models.
        version: Of the engine; by default the newest that the facts were read in.
        gpus: GPUs to split the model over.
        gpu_memory: GB that each GPU has, as it is sold.
        max_tokens: Longest text to serve; by default what the model takes, or what fits.
        parameters: Size of the model, such as "8B", where it is not known here.
        port: Of the server; by default the engine's.
        template_dir: Folder of the chat template that the server shall apply for other clients than ragpair.

    Raises:
        ConfigurationError: The engine cannot serve the model rightly, or the GPUs are too small for it.
    """
    version = facts.engine(engine).newest if version is None else version
    name, match = find(model, engine)
    known = facts.of(match)
    subject = Subject(
        name=name,
        match=match,
        facts=replace(known, parameters=parse_parameters(parameters)) if parameters is not None else known,
        task=task_of(task, match, model),
        engine=engine,
        version=parse_version(version, engine),
        gpus=gpus,
        gpu_memory=gpu_memory,
        max_tokens=_length(max_tokens, match, known.rule(engine), name),
        because="as asked" if max_tokens is not None else "",
        port=port,
        template_dir=template_dir,
    )
    _check_since(subject)
    draft = _DRAFT[engine](subject)
    _check_gpus(subject)
    fitting = _fit(subject)
    if fitting is not subject:
        draft = _DRAFT[engine](fitting)
    sum_ = memory.estimate(fitting)
    return Launch(
        engine=engine,
        version=version.removeprefix("v"),
        model=name,
        task=subject.task,
        server=draft.server,
        then=draft.then,
        modelfile=draft.modelfile,
        gguf=draft.gguf,
        template=draft.template,
        base_url=f"http://localhost:{port or subject.engine_facts.port}",
        served=draft.served,
        gpus=gpus,
        memory=sum_,
        cautions=(*draft.cautions, *_size_cautions(subject, fitting, sum_)),
    )


def _length(wanted: int | None, match: Match[catalog.Family] | None, rule: facts.Rule, name: str) -> int | None:
    most = rule.tokens or (match.max_tokens if match else None)
    if wanted is None:
        return most
    if most is not None and wanted > most:
        raise ConfigurationError(f"--max-tokens {wanted}: {name!r} takes {most} tokens at most there.")
    return wanted


def _check_since(subject: Subject) -> None:
    since = subject.rule.since
    if since and subject.version < tuple(map(int, since.split("."))):
        raise ConfigurationError(
            f"{subject.engine_facts.title} has {subject.name!r} since {since}, which "
            f"{'.'.join(map(str, subject.version))} is older than."
        )


def _check_gpus(subject: Subject) -> None:
    if subject.gpus > 1 and subject.facts.encoder:
        raise ConfigurationError(
            f"{subject.name!r} is an encoder, which nobody splits over GPUs: start one server on each, and give "
            "ragpair all their addresses as base_url."
        )
    body = subject.facts.body
    if body is not None and not _splits(body, subject.gpus):
        raise ConfigurationError(f"--gpus {subject.gpus}: {body.heads} attention heads cannot be split so.")


def _splits(body: Body | None, gpus: int) -> bool:
    return body is None or body.heads % gpus == 0


def _fit(subject: Subject) -> Subject:
    """The subject, with shorter texts if only those fit the GPU and the user did not ask for a length.

    Raises:
        ConfigurationError: It does not fit; the message says what would.
    """
    found = memory.estimate(subject)
    if found is None or subject.gpu_memory is None or subject.engine == "ollama" or found.needed <= subject.gpu_memory:
        return subject
    if not subject.because and not subject.facts.encoder:
        for length in _LENGTHS:
            shorter = replace(subject, max_tokens=length, because="what fits the GPU")
            if length < (subject.max_tokens or 0) and _fits(shorter):
                return shorter
    raise ConfigurationError(
        f"{subject.name!r} needs a GPU of about {found.needed:.1f} GB with {subject.engine_facts.title} "
        f"({' + '.join(f'{term.gib:.1f} {term.name}' for term in found.terms)} = {found.gib:.1f} GiB, and the engine "
        f"takes {found.share:.0%} of a GPU), not {subject.gpu_memory:g}. "
        + " ".join(_what_would_fit(subject) or ["Nothing of its family fits there."])
    )


def _fits(subject: Subject) -> bool:
    found = memory.estimate(subject)
    return found is not None and found.needed <= (subject.gpu_memory or 0)


def _what_would_fit(subject: Subject) -> list[str]:
    return [*_shorter_or_more(subject), *_halved(subject), *_smaller(subject)]


def _shorter_or_more(subject: Subject) -> Iterator[str]:
    if subject.facts.encoder:
        return
    for length in _LENGTHS:
        if length < (subject.max_tokens or 0) and _fits(replace(subject, max_tokens=length)):
            yield f"--max-tokens {length} fits."
            break
    for gpus in (2, 4, 8):
        if gpus > subject.gpus and _splits(subject.facts.body, gpus) and _fits(replace(subject, gpus=gpus)):
            yield f"--gpus {gpus} fits."
            break


def _halved(subject: Subject) -> Iterator[str]:
    halved = memory.estimate(subject, bytes_each=1)
    if not subject.facts.encoder and halved is not None and halved.needed <= (subject.gpu_memory or 0):
        yield (
            f"Weights in 8 bits (--quantization fp8, on GPUs that have it) would need {halved.needed:.1f} GB; they "
            "change the results a little, which nobody has measured here."
        )


def _smaller(subject: Subject) -> Iterator[str]:
    if subject.match is None:
        return
    for one in subject.match.family.models:
        match = catalog.find(one.repo)
        known = facts.of(match)
        if (known.parameters or 0) < (subject.facts.parameters or 0):
            other = replace(subject, name=one.repo, match=match, facts=known)
            if _fits(other):
                found = memory.estimate(other)
                yield f"{one.repo} fits ({found.needed if found else 0:.1f} GB)."


def _size_cautions(subject: Subject, fitting: Subject, found: Memory | None) -> Iterator[str]:
    if fitting is not subject:
        yield (
            f"Texts over {fitting.max_tokens:,} tokens will be refused, though the model takes {subject.max_tokens:,}: "
            f"a KV cache for one so long does not fit into {subject.gpu_memory:g} GB."
        )
    if found is None:
        if subject.match is None or subject.match.repo is not None:
            yield f"No memory estimate: the size of {subject.name!r} is not known here. Pass --parameters, such as 8B."
        return
    if subject.engine == "ollama" and subject.gpu_memory is not None and found.needed > subject.gpu_memory:
        yield "It does not fit the GPU. Ollama computes the rest on the CPU, which takes many times as long."
    alone = memory.estimate(replace(fitting, gpus=1))
    if subject.gpus > 1 and alone is not None and subject.gpu_memory and alone.needed <= subject.gpu_memory:
        yield (
            "It fits one such GPU. One server on each, with all their addresses as ragpair's base_url, usually "
            "serves more texts a second than one server on all."
        )
    if subject.engine == "vllm" and subject.gpu_memory and found.needed < subject.gpu_memory / 2:
        part = found.gib / subject.gpu_memory
        yield (
            f"vLLM takes {found.share:.0%} of a GPU whatever it needs. For a second server on the same one, give each "
            f"its part: --gpu-memory-utilization {part + 0.05:.2f} is enough for this one."
        )
