"""The rules of Ollama: what to pull, what to make of it, and what it cannot do.

Ollama runs as one server for all models; what a model needs stands in its Modelfile. It has no rerank route and runs no
cross-encoder. A reranker that answers yes or no works, if its file was converted as a plain language model.
"""

from __future__ import annotations

from collections.abc import Iterator

from ragpair import catalog
from ragpair.errors import ConfigurationError
from ragpair.launch.subject import Subject, is_folder
from ragpair.launch.values import Command, Draft, Flag

# What llama.cpp converts and runs as the card says.
_CONVERTED = frozenset({"bert", "mistral", "nomic-bert", "qwen2", "qwen3", "roberta", "xlm-roberta"})
_BATCH_CAP_SINCE = (0, 30)
_BATCH_CAP = 2048
_CONTEXT = 4096  # unless told otherwise, on less than 24 GB
_PARALLEL = 4


def draft(subject: Subject) -> Draft:
    """What to run.

    Raises:
        ConfigurationError: Ollama cannot serve the model.
    """
    if subject.template_dir is not None:
        raise ConfigurationError("Ollama applies no template to embeddings or scores: leave --write-template out.")
    if subject.gpus > 1:
        raise ConfigurationError("Ollama spreads a model over GPUs by itself: leave --gpus out.")
    if subject.task == "rerank":
        _check_reranker(subject)
    name = _library_name(subject)
    pulls = () if name is None else (Command(("ollama", "pull", name)),)
    source, base, gguf = (name, name, "") if name is not None else _file(subject)
    parameters = tuple(_parameters(subject))
    server = Command(("ollama", "serve"), environment=tuple(_environment(subject)))
    cautions = tuple(_cautions(subject, from_file=name is None))
    if name is not None and not parameters:
        return Draft(server, pulls, served=name, cautions=cautions)
    served = base if not parameters else _variant(base, subject.max_tokens)
    modelfile = "".join(f"{line}\n" for line in (f"FROM {source}", *parameters))
    create = Command(("ollama", "create", served, "-f", "Modelfile"))
    return Draft(server, (*pulls, create), modelfile, gguf, served=served, cautions=cautions)


def _check_reranker(subject: Subject) -> None:
    instead = (
        f"Serve it with vLLM (ragpair launch {subject.name} --engine vllm), or take a reranker that answers yes or no: "
        "ragpair launch Qwen/Qwen3-Reranker-0.6B --engine ollama"
    )
    if subject.match is not None and not subject.answers:
        raise ConfigurationError(
            f"Ollama cannot rerank with {subject.name!r}: it has no rerank route and runs no cross-encoders; their "
            f"files answer requests for embeddings with garbage, or refuse to generate. {instead}"
        )
    if subject.match is None:
        raise ConfigurationError(
            f"Ollama cannot rerank with {subject.name!r} unless it answers with one of two words, and nobody here "
            f"knows that it does. {instead}"
        )
    if subject.rule.refused:
        raise ConfigurationError(f"Ollama cannot serve {subject.name!r} rightly: {subject.rule.refused}")


def _library_name(subject: Subject) -> str | None:
    """What `ollama pull` gets, or None if it must be made from a file."""
    match = subject.match
    if match is None or not (subject.name == match.repo or is_folder(subject.name)):
        return subject.name
    for tag in match.family.ollama:
        known = catalog.find(tag)
        if match.repo is not None and known is not None and known.repo == match.repo:
            return tag
    return subject.rule.upload or None


def _file(subject: Subject) -> tuple[str, str, str]:
    """A GGUF file that the user makes, the name that the model gets, and the file's name."""
    if subject.facts.architecture not in _CONVERTED:
        raise ConfigurationError(
            f"The Ollama library does not have {subject.name!r}, and it is not known that llama.cpp converts it "
            f"({subject.facts.architecture}). Serve it with vLLM: ragpair launch {subject.name} --engine vllm"
        )
    base = subject.name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return f"./{base}.gguf", base.lower(), f"{base}.gguf"


def _parameters(subject: Subject) -> Iterator[str]:
    """Lines of the Modelfile. Encoders are cut at 2,048 tokens, since a text must fit one batch."""
    tokens, encoder = subject.max_tokens, subject.facts.encoder
    if tokens is None or not (subject.because or (encoder and tokens > _BATCH_CAP)):
        return
    if tokens > _CONTEXT or subject.because:
        yield f"PARAMETER num_ctx {tokens}"
    if encoder and tokens > _BATCH_CAP and subject.version >= _BATCH_CAP_SINCE:
        yield f"PARAMETER num_batch {tokens}"


def _variant(name: str, tokens: int | None) -> str:
    """A name by which ragpair still knows the model: "bge-m3:8192", "qwen3-embedding:0.6b-8192"."""
    return f"{name}-{tokens}" if ":" in name else f"{name}:{tokens}"


def _environment(subject: Subject) -> Iterator[Flag]:
    if subject.port is not None:
        yield Flag("OLLAMA_HOST", f"127.0.0.1:{subject.port}", "as asked; port 11434 by default")
    yield Flag("OLLAMA_KEEP_ALIVE", "-1", "keep models loaded; after 5 idle minutes, the next request waits for a load")
    if subject.task == "rerank":
        yield Flag("OLLAMA_NUM_PARALLEL", str(_PARALLEL), "ragpair asks about four documents at once; 1 by default")


def _cautions(subject: Subject, *, from_file: bool) -> Iterator[str]:
    yield "If Ollama runs already, as a service say, set the variables there and leave `ollama serve` out."
    if subject.match is None:
        yield f"{subject.name!r} is not in the catalogue: compare its vectors with its card, and name its family=."
    if subject.task == "rerank" and not from_file:
        yield (
            "Ollama's own library has no reranker. This is somebody's upload, which nobody here has checked: "
            "`ollama show NAME` must list `completion`; with `embedding` it is a file for llama.cpp's rerank route."
        )
    if from_file:
        kind = "completion" if subject.task == "rerank" else "embedding"
        plain = " as a plain language model, without a rerank head" if subject.task == "rerank" else ""
        yield (
            f"Ollama's library does not have it. Make the GGUF file with llama.cpp's convert_hf_to_gguf.py{plain}; "
            f"afterwards `ollama show NAME` must list `{kind}`."
        )
    if subject.facts.encoder and subject.version >= _BATCH_CAP_SINCE and (subject.max_tokens or 0) > _BATCH_CAP:
        yield (
            "num_batch is there because Ollama cuts texts of encoders at 2,048 tokens otherwise. That it lifts the cap "
            "was read in Ollama's source, not run."
        )
    if not subject.facts.encoder and not subject.because:
        yield (
            "Texts may be 4,096 tokens long where the GPU has less than 24 GB, whatever the model takes: "
            "--max-tokens N makes a variant for longer ones."
        )
