"""What befalls one process of several ends all of them, in time, with one sentence; what was trained is saved and whole.

The runs are those of a toy task: four steps in two epochs, of four batches, but the second and the fourth, of two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.comparing import bits, differences
from tests.launched import at_step, be_told_to_stop, die, hang, training
from tests.toy_task import registered
from utils import peers
from utils.errors import UserError

FLAGS = ["--model_type", "echo", "--batch_size", "2", "--accumulate_steps", "4", "--num_workers", "0", "--num_epochs"]
FLAGS += ["2", "--seed", "3", "--device", "cpu", "--auto_resume"]


@pytest.fixture(autouse=True, scope="module")
def toy() -> Any:
    """Have the toy task in this process and all that are forked from it."""
    with registered():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The last checkpoint of a run by one process that nothing befell."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    lives = training(folder, [*FLAGS, "--database_path", corpus], 1)
    assert lives.codes() == [0], lives.all_said()
    return last_of(folder)


def run_of(folder: Path) -> Path:
    (run,) = (folder / "models").iterdir()
    return run


def last_of(folder: Path) -> Path:
    return run_of(folder) / "checkpoint_epoch_2.pth"


def have_no_memory() -> None:
    raise MemoryError


def have_a_bug() -> None:
    raise ZeroDivisionError("a bug")


def cannot_read_epoch_2() -> None:
    from training.data.loading import BatchDataset  # noqa: PLC0415

    read = BatchDataset.__call__

    def reading(dataset: BatchDataset, key: Any, place: Any) -> Any:
        if key.epoch == 2:
            raise UserError("LA_T_1.flac cannot be read")
        return read(dataset, key, place)

    BatchDataset.__call__ = reading  # type: ignore[method-assign]


def die_in_the_first_save() -> None:
    from training.saving.store import CheckpointStore  # noqa: PLC0415

    CheckpointStore.save = lambda *_: die()  # type: ignore[assignment,method-assign]


def in_epoch_2(happens: Callable[[], object]) -> Callable[[], None]:
    """Return what lets something happen before the fourth step, which only the first process has batches of."""
    return at_step(4, happens, after=False)


@dataclass(frozen=True)
class Row:
    why: str
    whom: int
    befalls: Callable[[], None]
    codes: list[int | None]
    says: str
    saved: str


KILLED = "was killed, or its machine is gone. --auto_resume goes on from"
TABLE = [
    Row("the second is killed", 1, in_epoch_2(die), [1, -9], f"error: process 1 .* {KILLED}", "step_3"),
    Row("the first is killed", 0, in_epoch_2(die), [-9, 1], f"error: process 0 .* {KILLED}", "step_3"),
    Row("the first is killed in a save", 0, die_in_the_first_save, [-9, 1], KILLED, "epoch_1"),
    Row("the second is to stop", 1, at_step(3, be_told_to_stop), [143, 143], "Stopped by SIGTERM in epoch 2", "step_3"),
    Row("the second has no memory", 1, in_epoch_2(have_no_memory), [1, 1], "process 1 .*: memory ran out", "step_3"),
    Row("the second has a bug", 1, in_epoch_2(have_a_bug), [1, 1], "process 1 .*: ZeroDivisionError: a bug", "step_3"),
    Row("the second cannot read", 1, cannot_read_epoch_2, [1, 1], "error: LA_T_1.flac cannot be read. ", "epoch_1"),
    Row("the second hangs", 1, in_epoch_2(hang), [1, None], "process 1 .* does not answer for ", "step_3"),
    Row("the first hangs", 0, in_epoch_2(hang), [-9, 1], "process 0 .* does not answer for ", "step_3"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_all_end_and_one_process_goes_on_to_the_same_bits(
    row: Row, corpus: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "hang" in row.why:
        monkeypatch.setattr(peers, "BEAT_EVERY_S", 0.4)  # dead after 8 s
    command = [*FLAGS, "--database_path", corpus]
    lives = training(tmp_path / "run", command, 2, {row.whom: row.befalls})
    assert lives.codes(hanging=row.whom if "hang" in row.why else None) == row.codes, lives.all_said()
    said = lives.all_said()
    assert len(re.findall(row.says, said)) == 1, said
    assert said.count("error: ") <= 1, said
    assert (run_of(tmp_path / "run") / f"checkpoint_{row.saved}.pth").exists(), said
    alone = training(tmp_path / "run", command, 1)
    assert alone.codes() == [0], alone.all_said()
    assert differences(bits(last_of(tmp_path / "run")), bits(undisturbed)) == []
