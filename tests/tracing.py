"""Real refusals of the kernel: strace answers system calls of a child process with an error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.warm_start import WarmProgram

STRACE = shutil.which("strace") or ""
# A trial run: strace can be installed and still be forbidden, as in many containers.
_WORKS = bool(STRACE) and subprocess.run([STRACE, "true"], capture_output=True, check=False).returncode == 0
needs_strace = pytest.mark.skipif(not _WORKS, reason="needs strace, and leave to trace a child process")


def traced(strace: list[str], command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command under strace with these arguments, its forks too, and return what it said."""
    return subprocess.run(
        [STRACE, "-f", "--seccomp-bpf", *strace, *command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


# A process may be traced by its ancestors, and where the kernel is strict by nobody else whom it did not allow.
_WAIT_TO_BE_TRACED = """
import ctypes, signal
PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1
ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_long(PR_SET_PTRACER_ANY))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
"""


def traced_program(strace: list[str], folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the program under strace, its forks too, and return its exit code and what it said."""
    with WarmProgram(folder, *arguments, first=_WAIT_TO_BE_TRACED) as program:
        assert program.stdout.readline() == "ready\n"
        command = [STRACE, "-f", *strace, "-p", str(program.pid)]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as tracing:
            assert tracing.stderr is not None
            attached = tracing.stderr.readline()
            assert "attached" in attached, attached
            program.send_signal(signal.SIGUSR1)
            ended = program.end()
            tracing.communicate()
    return ended
