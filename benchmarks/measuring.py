"""Runs a command as a whole process and says what it cost; imports no torch, whose memory the child would inherit."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PROGRAM = (sys.executable, str(REPOSITORY / "main.py"))


@dataclass(frozen=True)
class Cost:
    """What one process took from its start to its end: wall and processor time, peak resident memory in MiB, output.

    Processor time, the sum over cores, says what it costs where other programs keep the machine busy; `system_seconds`
    is what of it the kernel took.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    output: str
    system_seconds: float = 0.0


def run_once(
    command: Sequence[str], folder: Path, exit_code: int = 0, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a command in `folder`, with some more environment, and return its cost.

    Raises RuntimeError where it ends with another exit code.
    """
    before = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - before
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != exit_code:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    peak_mib = usage.ru_maxrss * unit / 2**20
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak_mib, output, usage.ru_stime)


def run_repeatedly(command: Sequence[str], folder: Path, repeats: int, exit_code: int = 0) -> Cost:
    """Run a command once unmeasured, so that its files are in memory, then return the median of `repeats` runs."""
    run_once(command, folder, exit_code)
    costs = [run_once(command, folder, exit_code) for _ in range(repeats)]
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.median(cost.cpu_seconds for cost in costs),
        statistics.median(cost.peak_mib for cost in costs),
        costs[-1].output,
        statistics.median(cost.system_seconds for cost in costs),
    )


def machine_text(with_gpu: bool = False) -> str:
    """Return one line: processor, cores, GPU where it is asked for, Python, torch, date, how busy the machine is."""
    gpu = f"; {_gpu()}" if with_gpu else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores{gpu}; Python {platform.python_version()}, torch {version('torch')}; "
        f"{datetime.now(UTC):%Y-%m-%d}; load average {os.getloadavg()[0]:.2f} at the start"
    )


def _gpu() -> str:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return "; ".join(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
