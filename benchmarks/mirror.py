"""Takes the first folder of trainings away at random moments: the mirror must bring each of them to the same bits.

    python -m benchmarks.mirror [--accidents 50] [--seed N]

A training with --mirror is ended by SIGKILL at an instant drawn by seed, has an accident, and is started again with
--auto_resume, until it ends; then the next one begins. The accidents: models/ and logs/ are deleted while it trains or
after the kill; a bit of every checkpoint is flipped; the newest one is cut; the kill comes in the middle of a copy into
the mirror; the mirror is deleted; the first disk, a small tmpfs, is full for a while (where mounting is allowed).

At each end weights, optimizer and history must be those of a training that nobody disturbed, in the run folder and in
the mirror; the best and the last checkpoint must be whole, and every file in the mirror. Where both places were taken
away, the mirror first, before it was complete again, the best epoch may be on no disk: then it must be said. So must be
that no checkpoint is left, where the first one was damaged before it was mirrored.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from benchmarks.killing.life import Life
from benchmarks.measuring import machine_text
from tests.comparing import bits, differences
from tests.conftest import write_corpus
from tests.killing import temporaries
from training.checkpoints.sealed_file import broken_seal
from training.runs.survey import checkpoint_files, survey_folder
from utils.file_systems import free_bytes

IMPORTED_ONCE = ("training.loop.session",)
EPOCHS, STEPS = 4, 8
RUN = (
    *("--ssl_model", "compact", "--batch_size", "4", "--lr", "1e-3", "--num_workers", "0", "--comment", "mirrored"),
    *("--num_epochs", str(EPOCHS), "--save_interval", "2", "--max_lost", "2s", "--auto_resume"),
)
FIRST_DISK = "size=64m"
LONGEST_LIFE_S = 12.0
POLL_S = 0.005
LAST = f"checkpoint_epoch_{EPOCHS}_mirrored.pth"
REFUSED = "could not be saved"
NONE_USABLE = "can be used: "
BEST_IS_GONE = "and its checkpoint is not there any more"
MIRROR_DELETED = "mirror deleted"
FROM_MIRROR = "Going on from the mirror"


@dataclass(frozen=True)
class Accident:
    """What happens beside a life, which is killed when `during` returns, and what happens after that."""

    name: str
    during: Callable[[Path, Life, random.Random], None]
    after: Callable[[Path], None] = lambda folder: None  # noqa: ARG005
    needs_a_disk: bool = False


def wait(folder: Path, life: Life, draw: random.Random) -> None:  # noqa: ARG001
    """Let it train."""
    life.wait(draw.uniform(0.0, LONGEST_LIFE_S))


def delete_first(folder: Path, life: Life, draw: random.Random) -> None:
    """Delete the first folder while it trains, and let it train on for a while."""
    wait(folder, life, draw)
    _empty(folder / "models")
    life.wait(draw.uniform(0.0, 3.0))


def delete_mirror(folder: Path, life: Life, draw: random.Random) -> None:
    """Delete the mirror while it trains, and let it train on for a while."""
    wait(folder, life, draw)
    _empty(folder / "disk")
    life.wait(draw.uniform(0.0, 3.0))


def wait_for_a_copy(folder: Path, life: Life, draw: random.Random) -> None:  # noqa: ARG001
    """Return while a file is copied into the mirror."""
    end = time.monotonic() + LONGEST_LIFE_S
    while life.is_running and time.monotonic() < end and not temporaries(folder / "disk"):
        time.sleep(POLL_S)


def fill(folder: Path, life: Life, draw: random.Random) -> None:
    """Fill the first disk while it trains."""
    life.wait(draw.uniform(0.0, 3.0))
    with suppress(OSError), (folder / "models" / "filler").open("wb") as file:
        file.write(bytes(max(0, (free_bytes(folder / "models") or 0) - 100_000)))
    wait(folder, life, draw)


def make_room(folder: Path) -> None:
    """Take away what filled the disk."""
    (folder / "models" / "filler").unlink(missing_ok=True)


def delete_all(folder: Path) -> None:
    """Delete checkpoints and logs."""
    _empty(folder / "models")
    shutil.rmtree(folder / "logs", ignore_errors=True)


def flip_bits(folder: Path) -> None:
    """Damage every checkpoint in the first folder."""
    for run in (folder / "models").glob("*_mirrored"):
        for path in {path.stat().st_ino: path for path in checkpoint_files(run)}.values():
            with path.open("r+b") as file:
                file.seek(path.stat().st_size // 3)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))


def cut_newest(folder: Path) -> None:
    """Cut the newest checkpoint in the first folder to its half."""
    for run in (folder / "models").glob("*_mirrored"):
        if latest := survey_folder(run).latest:
            os.truncate(latest.path, latest.path.stat().st_size // 2)


ACCIDENTS = (
    Accident("deleted while it trains", delete_first),
    Accident("deleted", wait, delete_all),
    Accident("damaged", wait, flip_bits),
    Accident("newest damaged", wait, cut_newest),
    Accident("killed in a copy", wait_for_a_copy),
    Accident("killed in a copy, then deleted", wait_for_a_copy, delete_all),
    Accident(MIRROR_DELETED, delete_mirror),
    Accident("first disk full", fill, make_room, needs_a_disk=True),
)


@dataclass
class Accidents:
    """One training after the other below `root`, each with accidents, until there were `wanted`."""

    root: Path
    corpus: Path
    wanted: int
    draw: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    ends: int = 0
    restored: int = 0
    without_best: int = 0
    lost_before_mirrored: int = 0

    def run(self) -> None:
        """Raise AssertionError where a training does not end as the undisturbed one."""
        undisturbed = self.root / "undisturbed"
        undisturbed.mkdir()
        life = self._life(undisturbed)
        life.wait()
        assert life.exit_code == 0, life.said
        theirs = bits(_run_in(undisturbed / "models") / LAST)
        while self.counts.total() < self.wanted:
            folder = self.root / f"run_{self.ends}"
            (folder / "disk").mkdir(parents=True)
            (folder / "models").mkdir()
            has_disk = _mount(folder / "models")
            befell: list[str] = []
            try:
                self._have_accidents(folder, has_disk, befell)
                self._compare(folder, theirs, befell)
            except AssertionError as error:
                kept = Path(tempfile.mkdtemp(prefix="mirror_failed_")) / "run"
                shutil.copytree(folder, kept, symlinks=True)
                raise AssertionError(f"{error}\nfiles: {kept}\nafter: {'; '.join(befell)}") from error
            finally:
                if has_disk:
                    subprocess.run(["umount", "--lazy", str(folder / "models")], check=True)
            shutil.rmtree(folder)
            self.ends += 1
            print(f"{self.ends} ends, {self.counts.total()} accidents", flush=True)

    def _life(self, folder: Path, *more: str) -> Life:
        return Life(folder, (*RUN, "--database_path", str(self.corpus), *more))

    def _have_accidents(self, folder: Path, has_disk: bool, befell: list[str]) -> None:
        possible = [one for one in ACCIDENTS if has_disk or not one.needs_a_disk]
        for accident in self.draw.sample(possible, k=min(len(possible), self.wanted - self.counts.total())):
            befell.append(accident.name)
            life = self._life(folder, "--mirror", "disk")
            life.wait_until_it_trains()
            accident.during(folder, life, self.draw)
            if life.is_running:
                life.end(kill_after_s=0.0)
            if NONE_USABLE in life.said and not _has_whole(folder / "disk"):  # damaged before it was mirrored
                _empty(folder / "models")
                self.lost_before_mirrored += 1
                continue
            is_refused = accident.needs_a_disk and life.exit_code == 1 and REFUSED in life.said  # at its end
            assert life.exit_code in (0, -9) or is_refused, f"{accident.name}: {life.exit_code}\n{life.said}"
            self.restored += FROM_MIRROR in life.said
            self.counts[accident.name] += 1
            accident.after(folder)

    def _compare(self, folder: Path, theirs: dict[str, object], befell: list[str]) -> None:
        life = self._life(folder, "--mirror", "disk")
        life.wait()
        assert life.exit_code == 0, life.said
        self.restored += FROM_MIRROR in life.said
        has_best = not (BEST_IS_GONE in life.said and MIRROR_DELETED in befell)
        self.without_best += not has_best
        for place in (folder / "models", folder / "disk"):
            run = _run_in(place)
            assert not (found := differences(bits(run / LAST), theirs)), f"{run}: {found[:3]}"
            found_there = survey_folder(run)
            assert found_there.last, f"no last checkpoint in {run}"
            assert found_there.best or not has_best, f"no best checkpoint in {run}"
            best = [found_there.best.path] if found_there.best else []
            needed = [*best, found_there.last.path, run / LAST]
            paths = checkpoint_files(run) if place.name == "disk" else needed
            assert not (bad := [path for path in paths if broken_seal(path)]), bad
        assert not temporaries(folder), temporaries(folder)


def _mount(folder: Path) -> bool:
    """Mount a small disk; False where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", FIRST_DISK, "none", str(folder)]
    return not subprocess.run(command, check=False, capture_output=True).returncode


def _run_in(place: Path) -> Path:
    (found,) = place.glob("*_mirrored")
    return found


def _has_whole(place: Path) -> bool:
    """Whether a run folder in `place` has a checkpoint that is whole."""
    return any(not broken_seal(path) for run in place.glob("*_mirrored") for path in checkpoint_files(run))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True)


def main() -> None:
    """Print what was tried, and how each training ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accidents", type=int, default=50)
    parser.add_argument("--seed", type=int, default=20261126)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(machine_text(), flush=True)
    for module in IMPORTED_ONCE:
        import_module(module)
    with tempfile.TemporaryDirectory(prefix="mirror_") as root:
        corpus = write_corpus(Path(root) / "corpus", train=4 * STEPS)
        tried = Accidents(Path(root), corpus, asked.accidents, random.Random(asked.seed))
        tried.run()
    for name, number in tried.counts.most_common():
        print(f"  {number:3} {name}")
    print(
        f"{tried.counts.total()} accidents in {tried.ends} trainings, {tried.restored} starts from the mirror: "
        f"{tried.ends} of {tried.ends} ended with the bits of the undisturbed one, {tried.without_best} of them "
        f"without the checkpoint of the best epoch; {tried.lost_before_mirrored} times the only checkpoint was damaged "
        "before it was mirrored, and the training began anew"
    )


if __name__ == "__main__":
    main()
