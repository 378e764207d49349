"""Runs a command that must not outlive its caller: `guard.py COMMAND...`, with a pipe as standard input.

When the pipe closes, whether the caller closed it, was killed or crashed, the command's whole process group is asked to
end, and made to end after a while. When the command ends by itself, what it left behind is killed too.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

PATIENCE = 20  # seconds between asking and killing


def main(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_caller, args=(child,), daemon=True).start()
    code = child.wait()
    _signal_group(child, signal.SIGKILL)
    return code


def _end_with_caller(child: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1024):  # unbuffered: a thread that holds a lock of sys.stdin would break the guard's own exit
        pass
    _signal_group(child, signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    _signal_group(child, signal.SIGKILL)


def _signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)  # start_new_session: the group bears the child's id


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
