"""Writes a launch down: for a shell, for a program, for docker compose.

Compose files are YAML of which only mappings, lists and JSON strings are used, so that each value is read back as what
it was. A "$" is doubled there, since compose would put a variable in its place.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import orjson

from ragpair.launch import facts
from ragpair.launch.subject import is_folder
from ragpair.launch.values import Command, Flag, Launch, Memory

QDRANT = "qdrant/qdrant:v1.20.0"
_MODELS = "/models"
_SERVED = "/served"
_TEMPLATES = "/templates"
_SHARE = {"vllm": "--gpu-memory-utilization 0.4", "sglang": "--mem-fraction-static 0.4"}


def shell(launch: Launch) -> str:
    """The commands, quoted for sh, one flag a line."""
    parts = [_server(launch.server)]
    if launch.then:
        parts.append("# and once it is up:")
    if launch.modelfile:
        parts.append(f"cat > Modelfile <<'END'\n{launch.modelfile}END")
    parts += [_command(command) for command in launch.then]
    return "\n".join(parts)


def one_line(launch: Launch) -> str:
    """What starts or gets the model, in one line."""
    if launch.modelfile and not launch.then[:-1]:
        return f"{shlex.join(launch.then[-1].argv)}  # of a GGUF file"
    command = launch.then[0] if launch.then else launch.server
    return shlex.join(command.argv)


def usage(launch: Launch) -> str:
    """The line of Python that uses the server."""
    name = "Embedder" if launch.task == "embed" else "Reranker"
    model = f", model={orjson.dumps(launch.served).decode()}" if launch.served else ""
    return f'{name}("{launch.base_url}"{model})'


def as_dict(launch: Launch) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "engine": launch.engine,
        "version": launch.version,
        "model": launch.model,
        "task": launch.task,
        "command": list(launch.server.argv),
        "flags": [_flag(flag) for flag in launch.server.flags],
        "environment": [_flag(flag) for flag in launch.server.environment],
        "then": [list(command.argv) for command in launch.then],
        "modelfile": launch.modelfile or None,
        "gguf": launch.gguf or None,
        "template": launch.template or None,
        "shell": shell(launch),
        "base_url": launch.base_url,
        "served": launch.served,
        "ragpair": usage(launch),
        "memory": _memory(launch.memory),
        "cautions": list(launch.cautions),
    }


def compose(launch: Launch, template_dir: str | None = None) -> str:
    """A docker compose file: the server, and Qdrant beside it, both open to this machine only.

    Files of an embedder and of a reranker can be used together: what differs between them has the task in its name.
    """
    title = facts.engine(launch.engine).title
    lines = [f"# {launch.model} on {title} {launch.version}, and Qdrant. Start it: docker compose up -d"]
    if launch.then:
        lines.append(
            "# Then, once" + " (the Modelfile needs docker compose 2.23 or newer)" * bool(launch.modelfile) + ":"
        )
        lines += [f"#   docker compose exec ollama {shlex.join(command.argv)}" for command in _in_container(launch)]
    lines += [
        "# With another such file, of a model for the other task:",
        "#   docker compose -f compose.yaml -f other.yaml up -d",
    ]
    if launch.engine in _SHARE:
        lines.append(f"#   Each needs a --port of its own, and on one GPU, in both commands: {_SHARE[launch.engine]}")
    lines.append(f"# In ragpair: {usage(launch)}; Qdrant is at http://localhost:6333")
    return "\n".join([*lines, *_yaml(_services(launch, template_dir))]) + "\n"


def _server(command: Command) -> str:
    variables = "".join(f"{flag.name}={shlex.quote(flag.value or '')} " for flag in command.environment)
    return variables + _command(command)


def _command(command: Command) -> str:
    flags = (shlex.join([flag.name] if flag.value is None else [flag.name, flag.value]) for flag in command.flags)
    return " \\\n  ".join([shlex.join(command.words), *flags])


def _flag(flag: Flag) -> dict[str, str | None]:
    return {"name": flag.name, "value": flag.value, "reason": flag.reason}


def _memory(memory: Memory | None) -> dict[str, Any] | None:
    if memory is None:
        return None
    return {
        "terms": [{"name": term.name, "gib": round(term.gib, 2), "how": term.how} for term in memory.terms],
        "sum_gib": round(memory.gib, 2),
        "share": memory.share,
        "needed_gb": round(memory.needed, 1),
        "card_gb": memory.card,
        "unknown": memory.unknown or None,
    }


def _service(launch: Launch) -> str:
    """Ollama is one server for all models; of the others, each model has its own."""
    return launch.engine if launch.engine == "ollama" else f"{launch.engine}-{launch.task}"


def _in_container(launch: Launch) -> Iterator[Command]:
    for command in launch.then:
        words = tuple(f"/Modelfile-{launch.task}" if word == "Modelfile" else word for word in command.words)
        yield Command(words, command.flags)


def _services(launch: Launch, template_dir: str | None) -> dict[str, Any]:
    engine = facts.engine(launch.engine)
    port = launch.base_url.rpartition(":")[2]
    inside = str(engine.port) if launch.engine == "ollama" else port
    service: dict[str, Any] = {
        "image": engine.image.format(version=launch.version),
        "ports": [f"127.0.0.1:{port}:{inside}"],
        "environment": _environment(launch),
        "volumes": [f"models:{_MODELS}"],
        "deploy": {
            "resources": {
                "reservations": {"devices": [{"driver": "nvidia", "count": launch.gpus, "capabilities": ["gpu"]}]}
            }
        },
        "restart": "unless-stopped",
    }
    if launch.engine != "ollama":
        service |= {"entrypoint": list(launch.server.words[:2]), "command": _arguments(launch), "ipc": "host"}
    if is_folder(launch.model) and launch.engine != "ollama":
        service["volumes"].append(f"{launch.model}:{_mounted(launch.model)}:ro")
    if launch.gguf:
        service["volumes"].append(f"./{launch.gguf}:/{launch.gguf}:ro")  # where the Modelfile's FROM looks for it
    if launch.template and template_dir is not None:
        service["volumes"].append(f"{_here(template_dir)}:{_TEMPLATES}:ro")
    if launch.modelfile:
        service["configs"] = [{"source": f"modelfile-{launch.task}", "target": f"/Modelfile-{launch.task}"}]
    return {
        "services": {
            _service(launch): service,
            "qdrant": {
                "image": QDRANT,
                "ports": ["127.0.0.1:6333:6333", "127.0.0.1:6334:6334"],
                "volumes": ["qdrant:/qdrant/storage"],
                "restart": "unless-stopped",
            },
        },
        **({"configs": {f"modelfile-{launch.task}": {"content": launch.modelfile}}} if launch.modelfile else {}),
        "volumes": {"models": {}, "qdrant": {}},
    }


def _environment(launch: Launch) -> dict[str, str]:
    if launch.engine != "ollama":
        return {"HF_HOME": _MODELS}
    own = {flag.name: flag.value or "" for flag in launch.server.environment if flag.name != "OLLAMA_HOST"}
    return {"OLLAMA_MODELS": _MODELS, **own}


def _arguments(launch: Launch) -> list[str]:
    """The server's arguments in a container, where it must listen to what comes from outside."""
    words = [*launch.server.words[2:]]
    for flag in launch.server.flags:
        value = flag.value
        if flag.name == "--chat-template" and value is not None:
            value = f"{_TEMPLATES}/{PurePosixPath(value).name}"
        words += [flag.name] if value is None else [flag.name, value]
    words = [_mounted(word) if word == launch.model and is_folder(word) else word for word in words]
    return [*words, "--host", "0.0.0.0"]


def _mounted(folder: str) -> str:
    """Where a model's folder is in the container; its name stays, since ragpair knows the model by it."""
    return f"{_SERVED}/{PureWindowsPath(folder).name}"


def _here(folder: str) -> str:
    """Compose takes a path for a volume's name unless it starts with a dot or a slash."""
    return folder if folder.startswith(("/", ".", "~")) else f"./{folder}"


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    match value:
        case Mapping():
            for key, inner in value.items():
                yield from _entry(f"{indent}{key}:", inner, indent + "  ")
        case Sequence() if not isinstance(value, str):
            for inner in value:
                if isinstance(inner, Mapping):
                    first, *rest = _yaml(inner, indent + "  ")
                    yield f"{indent}- {first.lstrip()}"
                    yield from rest
                else:
                    yield f"{indent}- {_scalar(inner)}"


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping | list) and value:
        yield key
        yield from _yaml(value, indent)
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    return orjson.dumps(value.replace("$", "$$") if isinstance(value, str) else value).decode()
