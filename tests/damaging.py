"""Damages checkpoints of real runs the way disks do, and asks the program what it makes of each."""

from __future__ import annotations

import io
import pickle
import random
import shutil
import signal
import struct
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from main import main
from tests.asking import asked_training
from tests.conftest import REPOSITORY, SMALL_RUN, write_corpus
from tests.loading import load_payload, load_weights
from tests.warm_start import WarmProgram
from training.checkpoints.examined import UnusableFile, examine
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import read_record
from training.planning.decide import decide
from training.planning.facts import collect_facts
from utils.errors import UserError

BLOCK_SIZES = (512, 1024, 2048, 4096)
_SAVING = ["--save_interval", "4", "--compress_after", "1"]
_REFUSED_BY_TORCH = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    ImportError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
)


def flip_a_bit(content: bytes, draw: random.Random) -> bytes:
    """Change one bit, anywhere."""
    damaged = bytearray(content)
    damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def zero_a_block(content: bytes, draw: random.Random) -> bytes:
    """Fill an aligned block of 512 bytes to 4 KiB with zeros; one that holds zeros already is drawn again."""
    size = draw.choice(BLOCK_SIZES)
    while True:
        start = draw.randrange(0, len(content), size)
        end = min(start + size, len(content))
        if any(content[start:end]):
            return content[:start] + bytes(end - start) + content[end:]


def cut(content: bytes, draw: random.Random) -> bytes:
    """Keep the first part, nothing of it included."""
    return content[: draw.randrange(len(content))]


DAMAGES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flipped": flip_a_bit,
    "block zeroed": zero_a_block,
    "cut short": cut,
}


@dataclass(frozen=True)
class File:
    """One file of a run, all its names, what it holds in words, and how far it is; None for weights."""

    names: tuple[Path, ...]
    what: str
    position: tuple[int, int] | None


@dataclass(frozen=True)
class Victim:
    """A run whose checkpoints are good, and the flags that continue it."""

    folder: Path
    flags: tuple[str, ...]
    files: tuple[File, ...]

    def newest_without(self, damaged: File) -> tuple[int, int]:
        """Return the position that --auto_resume has to land on."""
        return max(file.position for file in self.files if file.position and file is not damaged)


@dataclass(frozen=True)
class Outcome:
    """What the program said to one damaged file, and whether torch.load alone would have taken it."""

    is_reported: bool
    is_refused: bool
    lands_on_newest_good: bool
    is_taken_by_torch_alone: bool

    @property
    def is_as_promised(self) -> bool:
        """Whether nothing trains from it and everybody is told."""
        return self.is_reported and self.is_refused and self.lands_on_newest_good


def make_victims(folder: Path) -> list[Victim]:
    """Train a run in `folder` and stop it in mid-epoch; put files of format 1 beside it."""
    settings = ("--database_path", str(write_corpus(folder / "corpus", train=40)), "--num_epochs", "9")
    flags = (*SMALL_RUN, *settings, *_SAVING, "--auto_resume")
    with WarmProgram(folder, *flags) as program:
        while program.is_running() and not list(folder.glob("models/*/checkpoint_epoch_3.pth")):
            time.sleep(0.01)
        program.send_signal(signal.SIGTERM)
        code, said = program.end()
    assert code == 128 + signal.SIGTERM, said
    (trained,) = (folder / "models").iterdir()
    old = folder / "models" / "g3_heatmap_DF_CCE_4_16_0.01_group3_contrastiveFalse"
    shutil.copytree(REPOSITORY / "tests" / "fixtures" / "format_1", old)
    return [
        _victim(trained.relative_to(folder), flags),
        _victim(old.relative_to(folder), ("--lr", "1e-2", "--num_epochs", "4", "--auto_resume")),
    ]


def _victim(folder: Path, flags: tuple[str, ...]) -> Victim:
    names: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.pth")):
        names.setdefault(path.stat().st_ino, []).append(path)
    return Victim(folder, flags, tuple(_file(tuple(together)) for together in names.values()))


def _file(names: tuple[Path, ...]) -> File:
    found, stored = examine(names[0]), read_record(names[0])
    assert not isinstance(found, UnusableFile) and stored is not None, found
    with zipfile.ZipFile(names[0]) as archive:
        deflated = any(entry.compress_type == zipfile.ZIP_DEFLATED for entry in archive.infolist())
    kind = found.kind if isinstance(found, CheckpointRecord) else Kind.WEIGHTS
    what = f"{kind.value}{', deflated' if deflated else ''}{', format 1' if stored['format'] == 1 else ''}"
    return File(names, what, found.position if isinstance(found, CheckpointRecord) else None)


def draw_file(victims: Sequence[Victim], draw: random.Random) -> tuple[Victim, File]:
    """Return a file to damage: every other time the newest checkpoint of a run, from which training would go on."""
    victim = draw.choice(victims)
    newest = max((file for file in victim.files if file.position), key=lambda file: file.position or (0, 0))
    return victim, newest if draw.random() < 0.5 else draw.choice(victim.files)


def outcome_of(victim: Victim, file: File, damaged: bytes) -> Outcome:
    """Damage a file in place, under all its names, ask, and mend it."""
    whole = file.names[0].read_bytes()
    assert damaged != whole
    file.names[0].write_bytes(damaged)
    try:
        return Outcome(
            _is_reported(victim, file),
            all(_refuses(load, file.names[0]) for load in (load_payload, load_weights)),
            _lands_on_newest_good(victim, file),
            _is_taken_by_torch(file.names[0]),
        )
    finally:
        file.names[0].write_bytes(whole)


def _is_reported(victim: Victim, file: File) -> bool:
    """Whether --validate_checkpoints calls every name of this file bad, and no other."""
    with redirect_stdout(io.StringIO()) as output:
        code = main(["--validate_checkpoints", str(victim.folder)])
    lines = output.getvalue().splitlines()
    bad = {line.split(": ")[0] for line in lines if ": DAMAGED: " in line or ": UNUSABLE: " in line}
    return code == 1 and bad == set(map(str, file.names))


def _refuses(load: Callable[[Path], object], path: Path) -> bool:
    try:
        load(path)
    except UserError:
        return True
    return False


def _lands_on_newest_good(victim: Victim, file: File) -> bool:
    """Whether --auto_resume continues from the newest good checkpoint, naming this one where it is newer."""
    command = asked_training(*victim.flags)
    plan = decide(command, collect_facts(command))
    wanted = victim.newest_without(file)
    is_right = plan.checkpoint is not None and plan.checkpoint.position == wanted
    is_newer = file.position is not None and file.position > wanted
    return is_right and (not is_newer or any(str(file.names[0]) in note for note in plan.notes))


def _is_taken_by_torch(path: Path) -> bool:
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except _REFUSED_BY_TORCH:
        return False
    return True
