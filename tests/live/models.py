"""The models that the live tests serve, built once into the cache.

`model("xlmr-rr")` is a Hugging Face folder, `model("xlmr-rr.gguf")` the same weights for llama.cpp. Which models there
are, and what they stand for, is told by `inside/build_models.py` and `inside/build_gguf.py`; a change to those scripts
builds the models anew. `model("parity/e5")` is one of those that only `make parity` needs, by
`inside/build_parity_models.py` and `inside/build_parity_gguf.py`, and `model("fitted/qwen3-rr")` one that has learnt
something, by `inside/build_fitted_models.py`.
"""

import hashlib
import subprocess
from pathlib import Path

from .engines import Engine, cache, last_lines, once, python_of

INSIDE = Path(__file__).parent / "inside"


def model(name: str) -> Path:
    """The folder or GGUF file of a model, built now if need be.

    Raises:
        EngineUnavailable: if the environment that builds it cannot be made on this machine.
    """
    group, _, name = name.rpartition("/")
    return _built(name, group)


def _built(name: str, group: str = "") -> Path:
    folders = cache() / "models"
    scripts: tuple[str, ...] = ("build_models.py",)
    _build(folders, scripts, "vllm", folders)
    files, gguf = cache() / "gguf", "build_gguf.py"
    if group:
        basis, folders = folders, cache() / f"models-{group}"
        scripts = (f"build_{group}_models.py", *scripts)
        _build(folders, scripts, "vllm", basis, folders)
        files, gguf, scripts = cache() / f"gguf-{group}", f"build_{group}_gguf.py", (gguf, *scripts)
    if not name.endswith(".gguf"):
        return folders / name
    _build(files, (gguf, *scripts), "llamacpp", folders, files)
    return files / name


def _build(target: Path, scripts: tuple[str, ...], engine: Engine, *arguments: Path) -> None:
    """Run the first of the scripts, unless it has run already; the others are those that it builds upon."""
    script = scripts[0]
    texts = [(INSIDE / name).read_bytes() for name in scripts]
    python = python_of(engine)
    with once(target, marker=hashlib.sha256(b"".join(texts)).hexdigest()) as missing:
        if missing:
            log = cache() / "logs" / f"{script.removesuffix('.py')}.log"
            with log.open("w") as output:
                command = [str(python), str(INSIDE / script), *map(str, arguments)]
                result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            if result.returncode:
                raise RuntimeError(f"{script} failed (log: {log}):\n{last_lines(log)}")
