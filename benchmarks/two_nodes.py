"""Two agents of torchrun, as on two machines; one of them is killed with its process, and the other goes on by itself.

    python -m benchmarks.two_nodes

Both agents start `main.py --auto_resume` with `--nnodes 1:2 --max_restarts 3`; the second is killed, with all it
started, after the first epoch. The first agent starts its process again, alone, without a person. The run must end with
the bits of one that a single process trained undisturbed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.measuring import PROGRAM, machine_text
from tests.comparing import bits, differences
from tests.conftest import write_corpus

NUM_EPOCHS = 4
FLAGS = ("--model_type", "lcnn", "--batch_size", "2", "--lr", "1e-3", "--num_workers", "0", "--device", "cpu")
ENDS_WITHIN_S = 900.0


def command(corpus: Path) -> tuple[str, ...]:
    """Return what each process does."""
    return (*PROGRAM, "--database_path", str(corpus), *FLAGS, "--num_epochs", str(NUM_EPOCHS), "--auto_resume")


def agent(folder: Path, corpus: Path, number: int, port: int) -> subprocess.Popen[bytes]:
    """Start one agent of torchrun, in a session of its own, its output in a file."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc_per_node", "1"]
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}", "--rdzv_id", "two-nodes"]
    words = [*launcher, *meeting, "--max_restarts", "3", *command(corpus)[1:]]
    with (folder / f"agent_{number}.txt").open("wb") as output:
        return subprocess.Popen(words, cwd=folder, stdout=output, stderr=output, start_new_session=True)


def last_of(folder: Path) -> Path:
    """Return the checkpoint of the last epoch of the one run in a folder."""
    (run,) = (folder / "models").iterdir()
    return run / f"checkpoint_epoch_{NUM_EPOCHS}.pth"


def said(folder: Path) -> str:
    """Return what both agents and their processes said."""
    return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("agent_*.txt")))


def wait_until_said(folder: Path, text: str) -> None:
    """Return once anybody said it; raises AssertionError after a long time."""
    until = time.monotonic() + ENDS_WITHIN_S
    while text not in said(folder):
        assert time.monotonic() < until, said(folder)
        time.sleep(0.05)


def main() -> int:
    """Train undisturbed, and by two agents of which one dies; compare, print, and return 1 where the bits differ."""
    print(machine_text(), flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as place:
        corpus = write_corpus(Path(place) / "corpus", train=24)
        alone, nodes = Path(place) / "alone", Path(place) / "nodes"
        alone.mkdir()
        nodes.mkdir()
        subprocess.run((*command(corpus), "--accumulate_steps", "2"), cwd=alone, check=True, stdout=subprocess.DEVNULL)
        port = 20_000 + os.getpid() % 10_000
        agents = [agent(nodes, corpus, 0, port)]  # this one keeps the rendezvous, which must survive
        _wait_for_port(port)
        agents.append(agent(nodes, corpus, 1, port))
        try:
            wait_until_said(nodes, f"Epoch 1/{NUM_EPOCHS}")
            had_first = f"Epoch 1/{NUM_EPOCHS}" in (nodes / "agent_1.txt").read_text()
            began = time.monotonic()
            for process in _of_session(agents[1].pid):
                os.kill(process, signal.SIGKILL)
            code = agents[0].wait(ENDS_WITHIN_S)
            seconds = time.monotonic() - began
        finally:
            for one in agents:
                if one.poll() is None:
                    one.terminate()
        found = differences(bits(last_of(nodes)), bits(last_of(alone)))
        print((nodes / "agent_0.txt").read_text(errors="replace"))
        whose = "which had process 0" if had_first else "which had process 1"
        print(f"Killed the second agent, {whose}; the first one ended with {code} after {seconds:.0f} s")
        print("the same bits" if not found else f"other bits: {found[:5]}")
        return int(bool(found) or code != 0)


def _wait_for_port(port: int) -> None:
    until = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)


def _of_session(session: int) -> list[int]:
    """Return the processes that an agent started, and itself."""
    found = subprocess.run(["ps", "-o", "pid=", "--sid", str(session)], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]


if __name__ == "__main__":
    sys.exit(main())
