"""Real refusals of the kernel: strace answers system calls of a child process with an error."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, command_line

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


def traced_program(strace: list[str], folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does, under strace."""
    return traced(strace, command_line(*arguments), folder)
