"""Kills real trainings, evaluations and exports at drawn moments; they must end like undisturbed ones.

    python -m benchmarks.kills [KILLS] [--seed N] [--only SCENARIO ...] [--first N]
                              [--two_networks | --vocoder | --mutants]

Each scenario (benchmarks/killing/scenarios.py) is a few commands in one folder, which together use every feature that
writes. Each command is started, ended by SIGKILL or SIGTERM, sent to it alone or to its process group, and repeated as
the documents say, until it ends by itself. Most moments lie in a phase of the command, all phases alike: while it
looks, moves aside, steps, validates, writes, prunes, compresses, draws, ends (benchmarks/killing/phases.py); the others
are any since the start. One life in ten is `python main.py`, the others are forks of this process. After each death no
checkpoint may be damaged and no progress gone; what SIGTERM saved must be there. After the last command its files,
curves and scores must be those of the undisturbed run, bit for bit, and no temporary, journal, held lock, process or
empty version may be left. KILLS counts SIGKILLs. What fails is kept and printed with the command that draws the same
moments again (which the machine meets at other instructions: repeat it some times).

--two_networks kills trainings of a small task instead (tests/toy_task.py): a second for a kill, forks alone.
--vocoder kills those of a vocoder, narrow enough for a tenth of a second a step, also between the updates of its
discriminators and of its generator, and its evaluation and export.
--mutants puts faults into the program, one after the other, lets it train that task, and kills until it is noticed that
something is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.killing import ends
from benchmarks.killing.ends import end_processes_in
from benchmarks.killing.mutants import MUTANTS, mutated
from benchmarks.killing.phases import import_phases
from benchmarks.killing.scenarios import SCENARIOS, TWO_NETWORKS, VOCODER
from benchmarks.killing.trying import Kills, Undisturbed
from benchmarks.measuring import machine_text
from main import main as run_program
from tests.conftest import write_corpus
from tests.crash_states.scenarios import warm_up
from tests.test_vocoder import narrow_vocoder
from tests.toy_task import registered

SEED = 20261126
IMPORTED_ONCE = (
    *("matplotlib.figure", "torch._inductor", "transformers.models.wav2vec2.modeling_wav2vec2"),
    *("tensorboard.summary.writer.record_writer", "tensorboard.compat.proto.event_pb2"),
    *("wandb", "wandb.apis.public", "wandb.sdk.launch", "onnxscript", "onnxruntime", "torch.onnx._internal.exporter"),
)
ONE_FRESH_IN = 10
MUTANT_RUNS = 12
MUTANT_COLUMNS = 120
MUTANT_SECONDS_TO_LEAVE = 1.0
MEMORY = Path("/dev/shm")  # what a kill can leave does not depend on the disk


def _corpus(place: Path) -> Path:
    """Write a corpus whose evaluation part is its validation part once more."""
    corpus = write_corpus(place / "corpus", train=12, dev=4)
    protocols = corpus / "ASVspoof2019_LA_cm_protocols"
    shutil.copytree(corpus / "ASVspoof2019_LA_dev", corpus / "ASVspoof2019_LA_eval")
    shutil.copy(protocols / "ASVspoof2019.LA.cm.dev.trl.txt", protocols / "ASVspoof2019.LA.cm.eval.trl.txt")
    return corpus


def _try_mutants(place: Path, seed: int) -> int:
    """Kill programs with faults, which train the two networks, and return how many of them no kill showed."""
    ends.SECONDS_TO_LEAVE = MUTANT_SECONDS_TO_LEAVE
    undisturbed: dict[str, Undisturbed] = {}
    unseen = 0
    for name in MUTANTS:
        kills = Kills(place, place / "corpus", seed, None, 0, mutated(name, run_program), undisturbed=undisturbed)
        for number in range(MUTANT_RUNS):
            if not kills.failures:
                kills.try_out(TWO_NETWORKS[0], number)
        end_processes_in(place)
        shown = kills.failures[0].splitlines()[0][:MUTANT_COLUMNS] if kills.failures else "NOT NOTICED"
        print(f"MUTANT {name}: {shown} ({kills.done} kills)", flush=True)
        unseen += not kills.failures
    return unseen


def main() -> int:
    """Kill that often, print what was hit and what failed, and return 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills")
    parser.add_argument("kills", nargs="?", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", nargs="+", metavar="SCENARIO")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--two_networks", action="store_true")
    parser.add_argument("--vocoder", action="store_true")
    parser.add_argument("--mutants", action="store_true")
    asked = parser.parse_args()
    flag = "--vocoder" if asked.vocoder else "--two_networks" if asked.two_networks or asked.mutants else ""
    scenarios = {"": SCENARIOS, "--vocoder": VOCODER, "--two_networks": TWO_NETWORKS}[flag]
    chosen = [one for one in scenarios if asked.only is None or one.name in asked.only]
    if not chosen:
        parser.error(f"--only: no scenario of these is called so: {', '.join(asked.only)}")
    print(machine_text(), flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # of those that are no forks
    torch.set_num_threads(1)
    for name in IMPORTED_ONCE:
        with suppress(ImportError):
            import_module(name)
    import_phases()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has it ignored: the table is printed
        signal.signal(number, signal.default_int_handler)
    before = time.monotonic()
    kept_in = Path(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, ignore_cleanup_errors=True) as folder,
        registered() if flag else nullcontext(),
        narrow_vocoder() if flag == "--vocoder" else nullcontext(),
    ):
        place = Path(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = str(place / "temporary")  # where W&B leaves what was killed
        Path(tempfile.tempdir).mkdir()
        kills = Kills(place, _corpus(place), asked.seed, kept_in, 0 if flag else ONE_FRESH_IN, flag=flag)
        if flag:
            (place / "warm").mkdir()
            warm_up(place / "warm", kills.corpus)
        try:
            if asked.mutants:
                return _try_mutants(place, asked.seed)
            kills.go_on_until(asked.kills, chosen, asked.first)
        except KeyboardInterrupt:
            print("Stopped; so far:")
        finally:
            end_processes_in(place)
    print(kills.table(chosen))
    failed = len(kills.failures)
    outcome = f"{failed} runs failed" if failed else f"all {kills.compared} runs that ended: nothing left, same bits"
    print(f"{kills.done} kills in {time.monotonic() - before:.0f} s: {outcome}")
    print(*kills.failures, sep="\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
