"""The invariants of training/saving/background_saving.py, with real threads and real files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.small_state import FACTS, OPTIONS, seed_everything, small_state, train
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import broken_seal
from training.saving.background_copies import BackgroundCopies
from training.saving.background_saving import (
    BackgroundSaver,
    DirectSaver,
    SavingFailedError,
    fence_before_updates,
    tensors_that_steps_change,
)
from training.saving.dead_disk import DeadDiskError, Patience
from training.saving.kept_buffers import KeptBuffers, bytes_to_keep, detach
from training.saving.save_control import SaveControl
from training.saving.store import CannotSaveError, save_checkpoint
from training.settings.tasks import DETECTION
from training.state.snapshot import take_snapshot
from training.state.train_state import Observations, TrainState
from training.tasks.schedule import make_schedule
from utils.interruption import StopRequest

REPOSITORY = Path(__file__).parent.parent
Payload = dict[str, Any]


def state_with_batch_norm(width: int = 256) -> TrainState:
    """Return a state whose forward pass changes buffers, and whose copy takes a moment."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, width), nn.Linear(width, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = make_schedule(optimizer, OPTIONS, 10_000)
    history = History(DETECTION.figures, UnfinishedEpoch(10), (("run-a", 0),))
    observed = Observations({"scores": torch.empty(0), "labels": torch.empty(0, dtype=torch.int64)})
    return TrainState({"model": net}, {"optimizer": optimizer}, {"scheduler": schedule}, history, observed)


def write(folder: Path) -> Callable[[Payload, CheckpointRecord, SaveControl], Path]:
    """Return a commit that saves one file for each step."""

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        path = folder / f"{record.step}.pth"
        save_checkpoint(path, payload, record, control.check)
        return path

    return commit


def saver_of(
    state: TrainState, commit: Callable[[Payload, CheckpointRecord, SaveControl], Path]
) -> BackgroundSaver[Path]:
    return BackgroundSaver(
        commit, lambda: tensors_that_steps_change(state.networks.values(), state.optimizers.values())
    )


def fences(saver: BackgroundSaver[Path], state: TrainState) -> Any:
    return fence_before_updates(saver.fence, state.optimizers.values())


def direct_bytes(folder: Path, payload: Payload, record: CheckpointRecord) -> bytes:
    path = folder / "direct"
    save_checkpoint(path, payload, record)
    return path.read_bytes()


class Gate:
    """Holds a commit back until it is opened, and tells when one has come."""

    def __init__(self) -> None:
        self.reached, self._opened = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._opened.wait(60)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def state() -> TrainState:
    seed_everything(1)
    made = state_with_batch_norm()
    train(made, 3)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "saved"
    made.mkdir()
    return made


def test_training_on_while_a_save_is_in_flight_changes_nothing_in_its_file(
    state: TrainState, folder: Path, tmp_path: Path
) -> None:
    gate = Gate()

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        gate.pass_through()
        return write(folder)(payload, record, control)

    saver = saver_of(state, commit)
    payload, record = take_snapshot(state, FACTS, Kind.STEP)
    expected = direct_bytes(tmp_path, payload, record)
    with fences(saver, state):
        assert saver.begin(payload, record) is None
        train(state, 5)
        assert saver.collect() is None
        gate.open()
        path = saver.close()
    assert path == folder / "3.pth"
    assert path.read_bytes() == expected


def test_statistics_that_the_next_forward_pass_changes_are_those_of_the_save(state: TrainState, folder: Path) -> None:
    saver = saver_of(state, write(folder))
    mean = state.networks["model"].state_dict()["1.running_mean"]
    before = mean.clone()
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    state.networks["model"](torch.randn(5, 3))
    assert not torch.equal(mean, before)
    path = saver.close()
    assert path is not None
    assert torch.equal(load_weights_of(path)["1.running_mean"], before)


def load_weights_of(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)["model_state_dict"]
    return weights


def test_an_optimizer_step_waits_for_the_copies(state: TrainState) -> None:
    """However long they take: here each of them takes 10 ms."""
    events = []
    deferred = list(tensors_that_steps_change(state.networks.values(), state.optimizers.values()))
    buffers = KeptBuffers()
    buffers.reserve(bytes_to_keep(deferred))
    copy, pending = detach(state.to_payload(), deferred, buffers)
    expected = {name: weight.clone() for name, weight in state.networks["model"].state_dict().items()}
    copies = BackgroundCopies(pending)

    def slowly() -> None:
        time.sleep(0.01)
        events.append("copy")

    with fence_before_updates(copies.fence, state.optimizers.values()):
        copier = threading.Thread(target=copies.make, args=(slowly,))
        copier.start()
        train(state, 1)
        events.append("step")
        copier.join()
    assert events == ["copy"] * (len(events) - 1) + ["step"]
    assert all(torch.equal(copy["model_state_dict"][name], weight) for name, weight in expected.items())


def test_a_fence_that_was_removed_is_not_asked() -> None:
    asked: list[str] = []
    state = small_state()
    with fence_before_updates(lambda: asked.append("fence"), state.optimizers.values()):
        train(state, 2)
    train(state, 2)
    assert asked == ["fence", "fence"]


def test_files_written_while_training_goes_on_are_those_of_a_direct_save(
    state: TrainState, folder: Path, tmp_path: Path
) -> None:
    """A thousand steps, saves and pauses in random order."""
    dice = random.Random(4)
    saver = saver_of(state, write(folder))
    expected: dict[Path, bytes] = {}
    with fences(saver, state):
        for number in range(1000):
            action = dice.choice(("save", "step", "step", "pause"))
            if number == 5:
                saver.prepare()
            if action == "step":
                train(state, 1)
            elif action == "pause":
                time.sleep(dice.choice((0, 1e-4, 1e-3)))
            elif folder / f"{state.step}.pth" not in expected:
                payload, record = take_snapshot(state, FACTS, Kind.STEP)
                expected[folder / f"{state.step}.pth"] = direct_bytes(tmp_path, payload, record)
                saver.begin(payload, record)
            if number % 200 == 199:
                state.history.under_way = UnfinishedEpoch(10)
        saver.close()
    assert len(expected) > 150
    assert [path.name for path, content in expected.items() if path.read_bytes() != content] == []


def test_the_next_save_waits_and_hands_over_the_outcome_of_the_one_before(state: TrainState, folder: Path) -> None:
    saver = saver_of(state, write(folder))
    with fences(saver, state):
        outcomes = []
        for _ in range(3):
            outcomes.append(saver.begin(*take_snapshot(state, FACTS, Kind.STEP)))
            train(state, 1)
        outcomes += [saver.wait(), saver.wait(), saver.collect(), saver.close()]
    assert outcomes == [None, folder / "3.pth", folder / "4.pth", folder / "5.pth", None, None, None]


def test_an_outcome_is_collected_once_without_waiting(state: TrainState, folder: Path) -> None:
    gate = Gate()

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        gate.pass_through()
        return folder

    saver = saver_of(state, commit)
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    assert saver.collect() is None
    gate.open()
    found = None
    while found is None:
        found = saver.collect()
    assert (found, saver.collect()) == (folder, None)
    saver.close()


@pytest.mark.parametrize("ask", ["collect", "wait", "begin", "close"])
def test_an_error_of_the_writer_surfaces_with_its_cause_and_the_saver_works_again(
    state: TrainState, folder: Path, ask: str
) -> None:
    ended = threading.Event()

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        if not ended.is_set():
            ended.set()
            raise ZeroDivisionError("a bug")
        return write(folder)(payload, record, control)

    saver = saver_of(state, commit)
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    with pytest.raises(SavingFailedError, match=r"because of a bug .ZeroDivisionError: a bug.") as raised:
        while True:  # collect does not wait
            saver.begin(*take_snapshot(state, FACTS, Kind.STEP)) if ask == "begin" else getattr(saver, ask)()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    if ask != "close":
        assert saver.begin(*take_snapshot(state, FACTS, Kind.STEP)) is None
        assert saver.close() == folder / "3.pth"


def test_a_value_that_is_not_plain_surfaces_too(state: TrainState, folder: Path) -> None:
    saver = saver_of(state, write(folder))
    payload, record = take_snapshot(state, FACTS, Kind.STEP)
    saver.begin(payload | {"path": Path("models")}, record)
    with pytest.raises(SavingFailedError, match=r"\['path'\] is a PosixPath"):
        saver.close()


def test_a_cancelled_save_leaves_what_was_there_and_no_temporary(state: TrainState, folder: Path) -> None:
    writing = threading.Event()
    refusals = []

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        written = [0]

        def stuck() -> None:
            written[0] += 1
            while written[0] > 20:  # in the middle of the file
                writing.set()
                control.check()

        try:
            save_checkpoint(folder / "3.pth", payload, record, stuck)
        except CannotSaveError as error:
            refusals.append(str(error))
        return folder

    saver = saver_of(state, commit)
    (folder / "3.pth").write_bytes(b"earlier")
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    assert writing.wait(60)
    assert [path.name for path in folder.iterdir()] != ["3.pth"]
    saver.cancel()
    assert [path.name for path in folder.iterdir()] == ["3.pth"]
    assert (folder / "3.pth").read_bytes() == b"earlier"
    assert refusals == [
        f"{folder / '3.pth'} could not be saved: the save was cancelled; earlier checkpoints are untouched"
    ]


@pytest.mark.parametrize(
    ("number", "seconds", "silent_from", "is_given_up", "reason"),
    [
        (None, 1000, 0, False, "nobody asked for a stop"),
        (signal.SIGINT, 1000, 0, False, "Ctrl-C: whoever typed it can do so again"),
        (signal.SIGTERM, 24, 0, False, "a slow sync"),
        (signal.SIGTERM, 26, 0, True, "before Slurm kills, after 30 s"),
        (signal.SIGTERM, 60, 40, False, "it writes on, slowly"),
        (signal.SIGTERM, 60, 30, True, "it wrote until then"),
    ],
)
def test_a_disk_is_dead_when_it_took_nothing_for_long_after_sigterm(
    number: signal.Signals | None, seconds: float, silent_from: float, is_given_up: bool, reason: str
) -> None:
    stop, control, now = StopRequest(), SaveControl(), 1000.0
    stop.signal, control.heard_at_s = number, now - 500
    patience = Patience(stop, control, lambda: now)
    assert not patience.requested
    control.heard_at_s, now = now + silent_from if silent_from else control.heard_at_s, now + seconds
    assert patience.requested == is_given_up, reason


def test_sigterm_ends_the_wait_for_a_dead_disk(state: TrainState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.saving.dead_disk.SILENT_S", 0.0)
    answered, stop = threading.Event(), StopRequest()

    def commit(*_: object) -> bool:
        return answered.wait(60)

    saver = BackgroundSaver(commit, lambda: (), stop=stop)
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    stop.signal = signal.SIGTERM
    with pytest.raises(DeadDiskError, match="given up"):
        saver.wait()
    answered.set()
    saver.cancel()


def test_cancelling_when_nothing_is_in_flight_is_nothing(state: TrainState, folder: Path) -> None:
    saver = saver_of(state, write(folder))
    saver.prepare()
    saver.cancel()
    saver.cancel()
    assert saver.close() is None


def test_training_goes_on_after_copies_that_were_given_up(state: TrainState, folder: Path) -> None:
    """Else the last steps of a run that is being stopped would wait for ever."""
    saver = saver_of(state, write(folder))
    with fences(saver, state):
        saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
        saver.cancel()
        train(state, 1)


class _Numbers(torch.utils.data.Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return torch.full((1000,), float(index)).sqrt()

    def __len__(self) -> int:
        return 8


def test_workers_can_be_forked_during_a_save(state: TrainState, folder: Path, tmp_path: Path) -> None:
    """They work, end, and write nothing into the file that is being written."""
    gate = Gate()

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        path = folder / "3.pth"
        written = [0]

        def stop_in_the_middle() -> None:
            written[0] += 1
            if written[0] == 20:
                gate.pass_through()

        save_checkpoint(path, payload, record, stop_in_the_middle)
        return path

    saver = saver_of(state, commit)
    payload, record = take_snapshot(state, FACTS, Kind.STEP)
    expected = direct_bytes(tmp_path, payload, record)
    saver.begin(payload, record)
    assert gate.reached.wait(60)
    loader = DataLoader(_Numbers(), num_workers=2, multiprocessing_context="fork")
    assert [int(batch[0, 0] ** 2 + 0.5) for batch in loader] == list(range(8))
    gate.open()
    path = saver.close()
    assert path is not None
    assert path.read_bytes() == expected


def test_forks_at_any_moment_of_a_save_work(state: TrainState, folder: Path, tmp_path: Path) -> None:
    payload, record = take_snapshot(state, FACTS, Kind.STEP)
    expected = direct_bytes(tmp_path, payload, record)
    saver = saver_of(state, write(folder))
    dice = random.Random(5)
    for _ in range(40):
        saver.begin(payload, record)
        time.sleep(dice.uniform(0, 0.004))
        child = os.fork()
        if child == 0:
            os._exit(int(torch.ones(100).sum().item()) - 100)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        path = saver.wait()
        assert path is not None
        assert path.read_bytes() == expected
    saver.close()


_LEAVE = """
import sys, time
from pathlib import Path
from tests.test_background_saving import FACTS, Kind, saver_of, state_with_batch_norm, take_snapshot, train, write

folder, how = Path(sys.argv[1]), sys.argv[2]

def slowly(payload, record, control):
    time.sleep(0.5)
    return write(folder)(payload, record, control)

state = state_with_batch_norm()
train(state, 2)
saver = saver_of(state, slowly)
saver.prepare()
saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
if how == "raise":
    raise ZeroDivisionError("of the loop")
"""


@pytest.mark.parametrize(("how", "exit_code"), [("end", 0), ("raise", 1)])
def test_a_program_that_ends_with_a_save_in_flight_finishes_it(folder: Path, how: str, exit_code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _LEAVE, str(folder), how],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == exit_code, ended.stderr
    assert [path.name for path in folder.iterdir()] == ["2.pth"]
    assert broken_seal(folder / "2.pth") is None
    assert torch.load(folder / "2.pth", weights_only=True)["step"] == 2


def test_the_memory_is_the_same_at_every_save(state: TrainState) -> None:
    places = []

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        places.append([weight.data_ptr() for weight in payload["model_state_dict"].values() if weight.dim() == 2])
        return Path()

    saver = saver_of(state, commit)
    saver.prepare()
    with fences(saver, state):
        for _ in range(3):
            saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
            train(state, 1)
        saver.close()
    assert len(places) == 3
    assert places[0] == places[1] == places[2]
    assert not set(places[0]) & {weight.data_ptr() for weight in state.networks["model"].parameters()}


@pytest.fixture
def far_too_large(tmp_path: Path) -> Iterator[Tensor]:
    """4 TB of a file that is one hole."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 42)
    yield torch.from_file(str(tmp_path / "hole"), shared=True, size=1 << 42, dtype=torch.uint8)


def test_without_memory_for_a_copy_saves_are_direct_and_it_is_said_once(
    state: TrainState, folder: Path, far_too_large: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = BackgroundSaver(write(folder), lambda: [far_too_large])
    saver.prepare()
    for _ in range(2):
        saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
        assert (folder / f"{state.step}.pth").exists()
        assert saver.collect() == folder / f"{state.step}.pth"
        train(state, 1)
    (said,) = capsys.readouterr().out.splitlines()
    assert "[WARNING] There is no memory for a copy of the state (it needs 4398.0 GB and" in said
    saver.close()


def test_a_direct_saver_has_saved_when_it_returns(state: TrainState, folder: Path, tmp_path: Path) -> None:
    saver = DirectSaver(write(folder))
    payload, record = take_snapshot(state, FACTS, Kind.STEP)
    saver.prepare()
    assert saver.begin(payload, record) is None
    assert (folder / "3.pth").read_bytes() == direct_bytes(tmp_path, payload, record)
    saver.fence()
    assert saver.begin(payload, record) == folder / "3.pth"
    assert (saver.collect(), saver.wait(), saver.close()) == (folder / "3.pth", None, None)


def test_the_time_that_the_loop_was_held_is_counted(state: TrainState, folder: Path) -> None:
    saver = saver_of(state, write(folder))
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    first = saver.blocked.last_seconds
    saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
    saver.fence()
    assert saver.blocked.total_seconds == pytest.approx(first + saver.blocked.last_seconds)
    assert first > 0
    saver.close()


@pytest.mark.parametrize("need", ["prepare", "begin"])
def test_a_payload_is_kept_until_its_memory_is_needed_again_and_that_is_said_before(tmp_path: Path, need: str) -> None:
    """A refused best epoch is saved from it; from memory that has another state it would be a wrong checkpoint."""
    state, seen = state_with_batch_norm(), list[tuple[Payload, SaveControl]]()
    seed_everything(1)
    train(state, 2)

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        seen.append((payload, control))
        return tmp_path

    saver = saver_of(state, commit)
    before = {name: part.clone() for name, part in state.networks["model"].state_dict().items()}
    with fences(saver, state):
        saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
        train(state, 2)
        saver.wait()
        (kept, control), *_ = seen
        assert all(kept["model_state_dict"][name].equal(before[name]) for name in before)
        said = [control.keeps_payload]
        saver.prepare() if need == "prepare" else saver.begin(*take_snapshot(state, FACTS, Kind.STEP))
        said.append(control.keeps_payload)
        saver.close()
    assert said == [True, False]


def test_a_state_that_is_saved_directly_is_not_kept(tmp_path: Path) -> None:
    seen = list[bool]()

    def commit(payload: Payload, record: CheckpointRecord, control: SaveControl) -> Path:
        seen.append(control.keeps_payload)
        return tmp_path

    DirectSaver(commit).begin(*take_snapshot(small_state(), FACTS, Kind.STEP))
    assert seen == [False]
