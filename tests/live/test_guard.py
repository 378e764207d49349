"""No engine outlives the tests, however they end."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

GUARD = Path(__file__).parent / "inside" / "guard.py"
# An engine with a child of its own; it says both ids.
ENGINE = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
CALLER = f"""
import subprocess, sys
command = [sys.executable, "-I", {str(GUARD)!r}, sys.executable, "-c", {ENGINE!r}]
subprocess.Popen(command, stdin=subprocess.PIPE).wait()
"""


@pytest.mark.parametrize("end", [subprocess.Popen.terminate, subprocess.Popen.kill], ids=["SIGTERM", "SIGKILL"])
def test_the_engine_ends_with_a_caller_that_is_killed(end: Callable[["subprocess.Popen[str]"], None]) -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        engine = [int(number) for number in caller.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in engine)
        end(caller)
    assert caller.returncode in {-signal.SIGTERM, -signal.SIGKILL}
    assert ended(engine)


def test_what_an_engine_leaves_behind_ends_too() -> None:
    dying = ENGINE.replace("time.sleep(600)\n", "sys.exit(3)\n")
    command = [sys.executable, "-I", str(GUARD), sys.executable, "-c", dying]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as guard:
        assert guard.stdout is not None
        engine = [int(number) for number in guard.stdout.readline().split()]
        assert guard.wait(30) == 3
    assert ended(engine)


def ended(pids: list[int], patience: float = 30) -> bool:
    deadline = time.monotonic() + patience
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
