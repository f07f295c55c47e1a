"""What befalls one process of several ends all of them, with one sentence; what was trained is saved and whole.

The runs are those of a toy task: four steps in two epochs, of four batches, but the second and the fourth, of two.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import TCPStore

from main import main
from tests.comparing import bits, differences
from tests.conftest import command_line, write_corpus
from tests.launched import Several, at_step, be_told_to_stop, die, environment_of, hang, training
from tests.toy_task import registered
from training.loop import shared_folder
from training.runs.survey import survey_folder
from utils import peers
from utils.ending import StoppedBySigterm
from utils.errors import UserError
from utils.ranks import Alone

FLAGS: list[str | Path] = [
    "--model_type",
    "echo",
    "--batch_size",
    "2",
    "--accumulate_steps",
    "4",
    "--num_workers",
    "0",
    "--num_epochs",
]
FLAGS += ["2", "--seed", "3", "--device", "cpu", "--save_interval", "1", "--auto_resume"]


@pytest.fixture(autouse=True, scope="module")
def toy() -> Any:
    """Have the toy task in this process and all that are forked from it."""
    with registered():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The folder of a run by one process that nothing befell, with a checkpoint of every step.

    It is this process: what it imports, its forks have.
    """
    folder = tmp_path_factory.mktemp("undisturbed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as forks have
    try:
        with chdir(folder):
            assert main([*map(str, FLAGS), "--database_path", str(corpus)]) == 0
    finally:
        torch.set_num_threads(threads)
    return run_of(folder)


def run_of(folder: Path) -> Path:
    (run,) = (folder / "models").iterdir()
    return run


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

    BatchDataset.__call__ = reading  # type: ignore[method-assign,assignment]


def die_in_the_first_save() -> None:
    from training.saving.store import CheckpointStore  # noqa: PLC0415

    CheckpointStore.save = lambda *_: die()  # type: ignore[assignment,method-assign]


def have_a_dead_disk() -> None:
    """Be sent SIGTERM once the disk takes no checkpoint any more."""
    from training.saving.background_saving import BackgroundSaver  # noqa: PLC0415
    from training.saving.dead_disk import DeadDiskError  # noqa: PLC0415

    def waited_long_enough(_: BackgroundSaver[Any]) -> None:
        raise DeadDiskError

    BackgroundSaver.wait = BackgroundSaver.close = waited_long_enough  # type: ignore[assignment,method-assign]
    be_told_to_stop()


def be_stopped_at_the_data() -> None:
    from training.loop import session  # noqa: PLC0415

    def open_data(*_: Any) -> None:
        raise StoppedBySigterm  # as its handler does while nothing is trained

    session.open_data = open_data  # type: ignore[attr-defined,assignment]


def in_epoch_2(happens: Callable[[], object]) -> Callable[[], None]:
    """Return what lets something happen before the fourth step, which only the first process has batches of."""
    return at_step(4, happens, after=False)


def after_update(number: int, happens: Callable[[], object]) -> Callable[[], None]:
    """Return what lets something happen right after this update, from 1, of which each step has two."""

    def arrange() -> None:
        update, seen = torch.optim.AdamW.step, [0]

        def watched(optimizer: torch.optim.AdamW, *given: Any, **named: Any) -> Any:
            result = update(optimizer, *given, **named)
            seen[0] += 1
            if seen[0] == number:
                happens()
            return result

        torch.optim.AdamW.step = watched  # type: ignore[method-assign,assignment]

    return arrange


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
    Row("the first is killed in a save", 0, die_in_the_first_save, [-9, 1], KILLED, "step_."),
    Row("the second is to stop", 1, at_step(3, be_told_to_stop), [143, 143], "Stopped by SIGTERM in epoch 2", "step_3"),
    Row("the second has no memory", 1, in_epoch_2(have_no_memory), [1, 1], "process 1 .*: memory ran out", "step_3"),
    Row("the second has a bug", 1, in_epoch_2(have_a_bug), [1, 1], "process 1 .*: ZeroDivisionError: a bug", "step_3"),
    Row("the second cannot read", 1, cannot_read_epoch_2, [1, 1], "error: LA_T_1.flac cannot be read. ", "epoch_1"),
    Row("the second hangs", 1, in_epoch_2(hang), [1, None], "process 1 .* does not answer for ", "step_3"),
    Row(
        "the disk is dead", 0, at_step(3, have_a_dead_disk), [143, 143], "error: the disk has taken nothing", "epoch_1"
    ),
    Row("the first hangs", 0, in_epoch_2(hang), [-9, 1], "process 0 .* does not answer for ", "step_3"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_all_end_with_one_sentence_and_the_state_of_one_process_is_saved(
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
    saved = survey_folder(run_of(tmp_path / "run")).checkpoints[-1].path.name
    assert re.fullmatch(f"checkpoint_{row.saved}.pth", saved), said
    assert differences(bits(run_of(tmp_path / "run") / saved), bits(undisturbed / saved)) == []


@pytest.mark.parametrize(("whom", "step"), [(0, 2), (1, 4)])
def test_a_kill_between_two_updates_costs_that_step_alone(
    whom: int, step: int, corpus: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """The first one's update is taken back, with its moments and its schedule, and what was before it is saved."""
    command = [*FLAGS, "--save_interval", "0", "--database_path", corpus]
    lives = training(tmp_path / "run", command, 2, {whom: after_update(2 * step - 1, die)})
    assert lives.codes() == ([-9, 1] if whom == 0 else [1, -9]), lives.all_said()
    saved = survey_folder(run_of(tmp_path / "run")).checkpoints[-1].path.name
    assert differences(bits(run_of(tmp_path / "run") / saved), bits(undisturbed / saved)) == []
    assert saved == f"checkpoint_step_{step - 1}.pth"


@pytest.mark.parametrize("whom", [0, 1])
def test_a_stop_of_one_before_training_is_one_of_all(whom: int, corpus: Path, tmp_path: Path) -> None:
    lives = training(tmp_path / "run", [*FLAGS, "--database_path", corpus], 2, {whom: be_stopped_at_the_data})
    assert lives.codes() == [143, 143], lives.all_said()
    said = "Stopped at once" if whom == 0 else "error: process 1 .*: stopped at once by SIGTERM"
    assert re.search(said, lives.said(0)), lives.all_said()
    assert not lives.said(1), "the first one says it"


def a_disk_that_refuses(folder: Path, index: int, times: int) -> Callable[[], None]:
    """Return what lets epoch 2 be the best, and the disk refuse it so often; last passes are noted in a file."""

    def arrange() -> None:
        from tests.toy_task import EchoTask  # noqa: PLC0415
        from training.loop import trainer  # noqa: PLC0415
        from training.saving.store import CannotSaveError, CheckpointStore  # noqa: PLC0415

        save, closeness = CheckpointStore.save, {2: 0.5, 4: 0.9}  # by step
        left = [times]

        def refuse(store: CheckpointStore, payload: Any, record: Any, *more: Any) -> Any:
            if record.epoch == 2 and not record.batches_done and left[0]:
                left[0] -= 1
                raise CannotSaveError("no room")
            return save(store, payload, record, *more)

        def note(_state: Any, _task: Any, _batches: Any, completed: Any, **_: Any) -> dict[str, Any]:
            with (folder / f"passed.{index}").open("a") as passed:
                passed.write(f"{completed.epoch} ")
            return {}

        EchoTask.validated = lambda _, step, __: ({"val_closeness": closeness.get(step, 0.1), "val_doubt": 0.0}, {})  # type: ignore[assignment,method-assign]
        CheckpointStore.save = refuse  # type: ignore[method-assign,assignment]
        trainer.pass_once_more = note  # type: ignore[attr-defined,assignment]

    return arrange


@pytest.mark.parametrize(
    ("count", "times", "passed", "says"),
    [
        (2, 99, "3 ", "Early stopping after epoch 3: none since epoch 1 was better"),
        (1, 2, "3 4 ", "Early stopping after epoch 4: none since epoch 2 was better"),
        (2, 2, "3 4 ", "Early stopping after epoch 4: none since epoch 2 was better"),
    ],
    ids=["refused for good", "saved at the end by one process", "saved at the end by two"],
)
def test_all_agree_when_patience_ends_though_the_first_alone_knows_that_the_best_epoch_is_on_no_disk(
    count: int, times: int, passed: str, says: str, corpus: Path, tmp_path: Path
) -> None:
    """Without epoch 2 the end is after epoch 3; where epoch 2 is saved then, on another try, training goes on."""
    befalls = {index: a_disk_that_refuses(tmp_path, index, times) for index in range(count)}
    flags = ["--num_epochs", "6", "--patience", "2", "--save_interval", "0", "--database_path"]
    lives = training(tmp_path / "run", [*FLAGS, *flags, corpus], count, befalls)
    assert lives.codes() == [0] * count, lives.all_said()
    assert says in lives.said(0)
    assert [(tmp_path / f"passed.{index}").read_text() for index in range(count)] == [passed] * count


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_that_cannot_hear_the_others_any_more_ends_with_them() -> None:
    names = [peers.Member(f"process {index}", "here", 0, 0) for index in range(2)]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ends = [socket.create_connection(listener.getsockname()), listener.accept()[0]]
    one, two = (peers.Peers(index, dict(enumerate(names)), {1 - index: ends[index]}) for index in range(2))
    one.hand_out(Unreadable())
    with pytest.raises(peers.PeersStoppedError, match="process 1 does not hear the others any more"):
        two.take_from(0)
    with pytest.raises(peers.PeersStoppedError, match="process 1 was killed"):
        one.take_from(1)
    for each in (one, two):
        each.close()


class Unreadable:
    """What can be sent and not be read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_a_start_leaves_alone_what_another_one_looks_for_in_the_same_folder(tmp_path: Path) -> None:
    mine, killed = tmp_path / ".seen-by-all-1", tmp_path / ".seen-by-all-2"
    for file in (mine, killed):
        file.touch()
    os.utime(killed, (0, 0))
    shared_folder.refuse_unshared_folder(tmp_path, Two())
    assert mine.exists() and not killed.exists()


class Two(Alone):
    """One process that counts for two."""

    count = 2


def refused(lives: Several, words: str, code: int) -> None:
    assert lives.codes() == [code] * lives.count, lives.all_said()
    assert lives.all_said().count("error: ") == 1, lives.all_said()
    assert words in lives.said(0)


def test_a_second_group_of_processes_on_a_folder_is_refused_and_the_first_one_trains_on(
    corpus: Path, tmp_path: Path
) -> None:
    command = [*FLAGS, "--database_path", corpus]
    go_on = tmp_path / "go on"

    def wait_for_the_other() -> None:
        while not go_on.exists():
            time.sleep(0.01)

    first = training(tmp_path / "run", command, 2, {0: at_step(1, wait_for_the_other)})
    first.wait_for("Training echo")
    second = training(tmp_path / "run", command, 2, said_as="second")
    refused(second, "another process trains in", 1)
    go_on.touch()
    assert first.codes() == [0, 0], first.all_said()


def test_processes_with_other_flags_are_refused_by_all_of_them(corpus: Path, tmp_path: Path) -> None:
    command = [*FLAGS, "--database_path", corpus]
    lives = training(tmp_path / "run", command, 2, more={1: ["--lr", "0.5"]})
    refused(lives, "--lr is 1e-06 in process 0 and 0.5 in process 1: start all processes with the same command", 2)
    assert not (tmp_path / "run" / "models").exists()


def test_a_bad_flag_of_one_process_is_told_by_the_first(corpus: Path, tmp_path: Path) -> None:
    lives = training(tmp_path / "run", [*FLAGS, "--database_path", corpus], 2, more={1: ["--lr", "-1"]})
    refused(lives, "--lr must be above 0, found -1.0", 2)


def test_processes_that_do_not_see_one_folder_are_refused_before_anything_is_trained(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_folder, "_SEEN_WITHIN_S", 1.0)
    (tmp_path / "elsewhere").mkdir()
    go = {1: lambda: os.chdir(tmp_path / "elsewhere")}
    lives = training(tmp_path / "run", [*FLAGS, "--database_path", corpus], 2, go)
    refused(lives, "elsewhere) does not see what process 0 writes into models: start all of them in one folder", 1)
    assert list((tmp_path / "run" / "models").iterdir()) == []


def test_processes_with_other_data_are_refused(corpus: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "other", train=10)

    def see_other_data() -> None:
        from training.data.database import corpus_place  # noqa: PLC0415
        from training.loop import opening  # noqa: PLC0415

        opening.corpus_place = lambda options: corpus_place(options.replaced(database_path=str(other)))  # type: ignore[attr-defined]

    lives = training(tmp_path / "run", [*FLAGS, "--database_path", corpus], 2, {1: see_other_data})
    refused(lives, "in process 1: start all processes with the same command, program and data", 1)


def test_two_real_processes_of_which_one_is_killed_go_on_as_one(corpus: Path, workplace: Path) -> None:
    """`main.py` as torchrun starts it, but by this test; epochs without end, until one is killed."""
    flags = ["--model_type", "lcnn", "--batch_size", "4", "--num_workers", "0", "--device", "cpu"]
    flags += ["--database_path", str(corpus)]
    processes = []
    with TemporaryFile("w+") as said:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for index in range(2):
            words = command_line(*flags, "--num_epochs", "1000")
            told = os.environ | environment_of(index, 2, store.port) | {"OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(words, env=told, stdout=said, stderr=said))
        try:
            while "Epoch 1/1000" not in text_of(said):
                assert all(process.poll() is None for process in processes), text_of(said)
                time.sleep(0.05)
            processes[1].kill()
            assert [process.wait() for process in processes] == [1, -9], text_of(said)
        finally:
            for process in processes:
                process.kill()
        assert len(re.findall("error: process 1 .* was killed", text_of(said))) == 1, text_of(said)
    (run,) = Path("models").iterdir()
    assert run.name == "lcnn_DF_CCE_1000_4_0.0003_group3_contrastiveFalse", "no number of batches that nobody typed"
    latest = survey_folder(run).latest
    assert latest is not None
    epochs = str(latest.epoch + 1)
    threads = torch.get_num_threads()
    try:
        assert main(["--resume", "--model_path", str(run), "--num_epochs", epochs, "--database_path", str(corpus)]) == 0
        alone = ["--accumulate_steps", "2", "--num_epochs", epochs, "--comment", "alone"]
        assert main([*flags, *alone]) == 0
    finally:
        torch.set_num_threads(threads)
    ended = Path("models") / run.name.replace("_1000_", f"_{epochs}_") / f"checkpoint_epoch_{epochs}.pth"
    (undisturbed,) = Path("models").glob(f"*_alone/checkpoint_epoch_{epochs}_alone.pth")
    assert [place for place in differences(bits(ended), bits(undisturbed)) if "/comment" not in place] == []


def text_of(file: Any) -> str:
    file.seek(0)
    return str(file.read())
