"""What a small container changes: little shared memory, few open files, little address space; and how fast a stop is.

    python -m benchmarks.small_containers [FOLDER] [--flag VALUE ...]

`lcnn` is trained on the demo corpus with four processes that read audio, in a mount namespace whose /dev/shm is so
large, or under `ulimit -n` or `ulimit -v`. SIGTERM comes three seconds after training has begun. Printed are the exit
code, what is saved, how long the program took to leave, and its notes and errors. Other flags are those of the program.
/dev/shm needs the right to make a mount namespace.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import PROGRAM, machine_text

LIMITS = {
    "none": "true",
    "/dev/shm of 64 MB": "mount -t tmpfs -o size=64m none /dev/shm",
    "/dev/shm of 1 MB": "mount -t tmpfs -o size=1m none /dev/shm",
    **{f"ulimit -n {number}": f"ulimit -n {number}" for number in (64, 48, 32, 24)},
    **{f"ulimit -v {gib} GiB": f"ulimit -v {round(gib * 2**20)}" for gib in (8, 4, 3, 2.5, 2, 1)},
}
TRAINING_BEGAN = "Training "
TRAINS_FOR_S, WAITS_FOR_S = 3.0, 120.0


def main() -> None:
    """Print some lines for each limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    asked, flags = parser.parse_known_args()
    print(machine_text())
    given = ["--model_type", "lcnn", "--batch_size", "8", "--num_workers", "4", "--num_epochs", "100", *flags]
    may_mount = not subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode
    for name, limit in LIMITS.items():
        if "mount" in limit and not may_mount:
            print(f"{name}: skipped, no right to make a mount namespace")
            continue
        within = ["unshare", "--mount"] if "mount" in limit else []
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            _try(name, [*within, "bash", "-c", f'{limit} && exec "$@"', "bash", *PROGRAM, *given], Path(folder))


def _try(name: str, command: list[str], folder: Path) -> None:
    log = folder / "said.txt"
    with log.open("w") as said:
        process = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
    ended = os.pidfd_open(process.pid)
    until = time.monotonic() + WAITS_FOR_S
    while not select.select([ended], [], [], 0.1)[0] and time.monotonic() < until:
        if any(line.startswith(TRAINING_BEGAN) for line in log.read_text().splitlines()):
            select.select([ended], [], [], TRAINS_FOR_S)
            break
    before = time.monotonic()
    is_over = process.poll() is not None
    if not is_over:
        process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(WAITS_FOR_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    os.close(ended)
    how = "ended by itself" if is_over else f"SIGTERM, and it left after {time.monotonic() - before:.1f} s"
    saved = sorted(path.name for path in folder.glob("models/*/checkpoint_*.pth")) or ["nothing"]
    print(f"{name}: exit code {code}; {how}; saved: {', '.join(saved)}")
    for line in log.read_text().splitlines():
        if line.startswith(("[NOTE]", "[WARNING]", "error", "Traceback", "Stopped")) or "rror:" in line:
            print(f"    {line}")
    if not log.read_text():
        print("    (nothing was printed)")


if __name__ == "__main__":
    main()
