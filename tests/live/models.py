"""The models that the live tests serve, built once into the cache.

`model("xlmr-rr")` is a Hugging Face folder, `model("xlmr-rr.gguf")` the same weights for llama.cpp. Which models there
are, and what they stand for, is told by `inside/build_models.py` and `inside/build_gguf.py`; a change to those scripts
builds the models anew. `model("parity/e5")` is one of those that only `make parity` needs, by
`inside/build_parity_models.py`.
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
    folders = cache() / "models"
    _build(folders, "build_models.py", "vllm", str(folders))
    if name.startswith("parity/"):
        more = cache() / "models-parity"
        _build(more, "build_parity_models.py", "vllm", str(folders), str(more), after="build_models.py")
        return more / name.removeprefix("parity/")
    if not name.endswith(".gguf"):
        return folders / name
    files = cache() / "gguf"
    _build(files, "build_gguf.py", "llamacpp", str(folders), str(files), after="build_models.py")
    return files / name


def _build(target: Path, script: str, engine: Engine, *arguments: str, after: str = "") -> None:
    texts = [(INSIDE / name).read_bytes() for name in (script, after) if name]
    python = python_of(engine)
    with once(target, marker=hashlib.sha256(b"".join(texts)).hexdigest()) as missing:
        if missing:
            log = cache() / "logs" / f"{script.removesuffix('.py')}.log"
            with log.open("w") as output:
                command = [str(python), str(INSIDE / script), *arguments]
                result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            if result.returncode:
                raise RuntimeError(f"{script} failed (log: {log}):\n{last_lines(log)}")
