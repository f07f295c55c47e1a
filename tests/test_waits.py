"""Whatever a training or an evaluation waits for can be ended, is named, and costs nothing that was trained."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from tests.comparing import assert_same_training, bits, differences
from tests.conftest import DuringStep, command_line, write_corpus
from training.checkpoints.sealed_file import broken_seal
from training.data import loading
from training.tasks.detection import DetectionTask
from utils import waiting
from utils.audio.waveforms import Waveform, read_waveform
from utils.corpora import CorpusPart
from utils.interruption import StopRequest

STEPS_PER_EPOCH = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps an epoch, of two utterances each."""
    return write_corpus(tmp_path_factory.mktemp("tiny"), train=6, dev=4)


@pytest.fixture(autouse=True)
def in_the_workplace(workplace: Path) -> None:
    """Run in an empty folder."""


def flags(corpus: Path, *more: str, epochs: int = 2) -> list[str]:
    machine = ["--model_type", "lcnn", "--lr", "1e-3", "--batch_size", "2", "--num_workers", "0"]
    return ["--database_path", str(corpus), *machine, "--num_epochs", str(epochs), *more]


def saved() -> list[str]:
    files = sorted(Path("models").glob("*/checkpoint_*.pth"))
    assert [broken_seal(path) for path in files] == [None] * len(files)
    return [path.stem for path in files]


class DeadMount:
    """Reading a file whose name contains `of` never returns, in this process and in workers forked from it."""

    def __init__(self) -> None:
        self.of: str | None = None
        self.is_reached = multiprocessing.get_context("fork").Event()
        self._mended = threading.Event()

    def read(self, path: Path) -> Waveform:
        if self.of is not None and self.of in path.name:
            self.is_reached.set()
            self._mended.wait()
        return read_waveform(path)

    def mend(self) -> None:
        self._mended.set()


@pytest.fixture
def dead_mount(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeadMount]:
    mount = DeadMount()
    monkeypatch.setattr(loading, "read_waveform", mount.read)
    yield mount
    mount.mend()


def send_later(number: signal.Signals, seconds: float = 0.3) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


def send_once_reached(mount: DeadMount, number: signal.Signals) -> None:
    def send() -> None:
        if mount.is_reached.wait(600):
            while signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # it would end the tests
                time.sleep(0.01)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


def send_workers(number: signal.Signals) -> None:
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, number)


def test_a_stop_ends_a_training_whose_workers_gave_up_and_its_state_is_saved(
    corpus: Path, during_step: DuringStep
) -> None:
    """For ever it waited for a batch that a worker had lost, and took no notice of SIGTERM."""

    def give_up() -> None:
        send_workers(signal.SIGSTOP)  # alive, they neither read nor take SIGTERM, as where a mount is dead
        send_later(signal.SIGTERM)

    during_step({2: give_up})
    assert main(flags(corpus, "--num_workers", "2", epochs=30)) == 143
    assert len(saved()) == 1, "of a step, or of the epoch where all its batches were there already"
    assert multiprocessing.active_children() == []


def test_workers_that_hang_are_replaced_and_the_training_ends_with_the_same_bits(
    corpus: Path, during_step: DuringStep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One was forked while a thread held a lock of the C library, waited for it for ever, and training for it."""
    monkeypatch.setattr(loading, "_PATIENCE_S", 0.2)
    during_step({2: lambda: send_workers(signal.SIGSTOP)})
    assert main(flags(corpus, "--num_workers", "2", "--comment", "hung")) == 0
    assert re.search(
        r"Nothing came from worker [12].* for 0 s: another process reads that again", capsys.readouterr().err
    )
    assert main(flags(corpus, "--comment", "undisturbed")) == 0
    (one,), (other,) = Path("models").glob("*_hung"), Path("models").glob("*_undisturbed")
    for name in ("checkpoint_epoch_1", "checkpoint_epoch_2"):
        found = [bits(run / f"{name}_{comment}.pth") for run, comment in ((one, "hung"), (other, "undisturbed"))]
        assert differences(found[0]["model_state_dict"], found[1]["model_state_dict"]) == []
    assert multiprocessing.active_children() == []


def test_where_their_replacements_hang_too_a_stop_ends_the_training(
    corpus: Path, dead_mount: DeadMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def tell_and_stop(text: str) -> None:
        told.append(text)
        if len(told) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loading, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(loading, "say_aside", tell_and_stop)
    dead_mount.of = "LA_T"
    assert main(flags(corpus, "--num_workers", "1")) == 143
    assert [text.partition(":")[0] for text in told] == [f"[NOTE] Nothing came from worker 1 for {s} s" for s in (0, 0)]
    assert multiprocessing.active_children() == []


def test_a_stop_ends_a_training_that_reads_by_itself_from_a_dead_mount_and_its_state_is_saved(
    corpus: Path, during_step: DuringStep, dead_mount: DeadMount
) -> None:
    def die() -> None:
        dead_mount.of = "LA_T"

    during_step({2: die})
    send_once_reached(dead_mount, signal.SIGTERM)
    assert main(flags(corpus)) == 143
    assert saved() == ["checkpoint_step_2"]


def test_a_stop_before_the_first_batch_is_there_ends_the_training(corpus: Path, dead_mount: DeadMount) -> None:
    dead_mount.of = "LA_T"
    send_once_reached(dead_mount, signal.SIGTERM)
    assert main(flags(corpus)) == 143
    assert saved() == []


def test_a_stop_ends_a_validation_that_waits_and_what_was_trained_is_saved(corpus: Path, dead_mount: DeadMount) -> None:
    dead_mount.of = "LA_D"
    send_once_reached(dead_mount, signal.SIGTERM)
    assert main(flags(corpus)) == 143
    assert saved() == [f"checkpoint_step_{STEPS_PER_EPOCH}"]


def test_a_stop_ends_the_drawing_of_an_epoch_that_waits_and_the_epoch_is_saved(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, dead_mount: DeadMount
) -> None:
    def draw(task: DetectionTask, networks: Any, part: CorpusPart, folder: Path, stop: StopRequest) -> None:
        dead_mount.of = "LA_D"
        send_later(signal.SIGTERM)
        list(loading.read_waveforms(part.audio_paths, stop))

    monkeypatch.setattr(DetectionTask, "folders_to_draw", lambda *_, **__: [Path("drawn")])
    monkeypatch.setattr(DetectionTask, "draw", draw)
    assert main(flags(corpus)) == 143
    assert saved() == ["checkpoint_epoch_1"]


def test_a_stop_ends_an_evaluation_that_waits_and_the_scores_so_far_are_kept(
    corpus: Path, dead_mount: DeadMount, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(corpus, epochs=1)) == 0
    (run,) = Path("models").iterdir()
    protocol = next(corpus.glob("*_cm_protocols/*dev*"))
    dead_mount.of = "LA_D_0000002"
    send_once_reached(dead_mount, signal.SIGTERM)
    typed = ["--eval", "--model_path", str(run), "--database_path", str(corpus), "--protocols_path", str(protocol)]
    assert main([*typed, "--batch_size", "2", "--num_workers", "0", "--eval_output", "scores.txt"]) == 143
    assert "Stopped after 2 of 4 trials" in capsys.readouterr().out


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_after_a_while_without_data_the_file_is_named_that_is_awaited(
    num_workers: str,
    corpus: Path,
    dead_mount: DeadMount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = corpus / "ASVspoof2019_LA_train" / "flac" / "LA_T_0000003.flac"
    told = []

    def tell_and_stop(text: str) -> None:
        told.append(text)
        if str(where) in text or len(told) > 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(waiting, "FIRST_TOLD_S", 0.2)
    monkeypatch.setattr(waiting, "say_aside", tell_and_stop)
    monkeypatch.setattr("training.loop.trainer.take_step", lambda *_: pytest.fail("there was a batch"))
    dead_mount.of = "LA_T_0000003"
    assert main(flags(corpus, "--num_workers", num_workers, "--batch_size", "6")) == 143
    who = " (worker 1)" if num_workers == "1" else ""
    pattern = rf"\[NOTE\] Waiting for \d+ s for data: reading {re.escape(f'{where}{who}')}"
    assert any(re.fullmatch(pattern, text) for text in told), told


def test_a_worker_that_is_killed_ends_the_training_with_its_state_saved(
    corpus: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    during_step({2: lambda: send_workers(signal.SIGKILL)})
    assert main(flags(corpus, "--num_workers", "2", epochs=30)) == 1
    said = capsys.readouterr().err
    assert "a process that reads audio died (killed by SIGKILL, most likely for want of memory)" in said
    assert "--num_workers" in said and f"--auto_resume goes on from {next(Path('models').iterdir())}/" in said
    assert len(saved()) == 1


def without_memory(monkeypatch: pytest.MonkeyPatch, at_step: int, what: Callable[[], object]) -> None:
    """Let memory run out in the first pass at a step, after the forward pass has changed what it changes."""
    loss = DetectionTask.loss
    seen = [0]

    def failing(self: DetectionTask, *arguments: Any) -> Any:
        found = loss(self, *arguments)
        seen[0] += 1
        if seen[0] == at_step:
            what()
        return found

    monkeypatch.setattr(DetectionTask, "loss", failing)


def too_much() -> object:
    return torch.empty(2**50)


def test_where_memory_runs_out_within_a_step_all_before_it_is_saved_and_goes_on_to_the_same_bits(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch norm of this detector has seen the batch of the step that failed."""
    run = flags(corpus)
    assert main(run) == 0
    shutil.move("models", "undisturbed")
    with monkeypatch.context() as patched:
        without_memory(patched, 5, too_much)
        assert main(run) == 1
    said = capsys.readouterr().err
    assert "error: memory ran out (4503599627370496 bytes more were asked for) after step 4: pass a lower" in said
    assert "--batch_size" in said and "checkpoint_step_4.pth" in said and "Traceback" not in said
    assert saved() == ["checkpoint_epoch_1", "checkpoint_step_4"]
    assert main([*run, "--auto_resume"]) == 0
    (one,), (other,) = Path("models").iterdir(), Path("undisturbed").iterdir()
    assert_same_training(one, other)


def test_where_memory_runs_out_within_an_update_nothing_half_done_is_saved(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, seen = torch.optim.Adam.step, [0]

    def failing(self: torch.optim.Adam, *arguments: Any) -> Any:
        seen[0] += 1
        step(self, *arguments)
        if seen[0] == 5:
            raise MemoryError
        return None

    monkeypatch.setattr(torch.optim.Adam, "step", failing)
    assert main(flags(corpus)) == 1
    assert "--auto_resume goes on from" in capsys.readouterr().err
    assert saved() == ["checkpoint_epoch_1"]


def test_other_errors_of_a_step_keep_their_traceback(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_memory(monkeypatch, 2, lambda: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):
        main(flags(corpus))


def test_a_dev_shm_without_room_and_few_open_files_change_nothing_but_how_many_processes_read(corpus: Path) -> None:
    """A container has 64 MB in /dev/shm: a batch was lost there, and the training waited for it for ever."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", "/dev/shm"]
    unshare = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, *mount], capture_output=True, check=False).returncode:
        pytest.skip("needs leave to make a mount namespace")
    limits = f"{' '.join(mount)} && ulimit -n 32"
    typed = command_line(*flags(corpus, "--num_workers", "4", epochs=1))
    run = subprocess.run(
        [*unshare, "bash", "-c", f'{limits} && exec "$@"', "bash", *typed],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"train audio is read by \d instead of 4 processes of --num_workers \(only 32 files", run.stdout)
    assert "dev audio is read by none of the 4 processes" in run.stdout
    assert saved() == ["checkpoint_epoch_1"]


def test_a_system_that_refuses_processes_is_told_and_training_goes_on_without(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(loading, "Worker", refuse)
    assert main(flags(corpus, "--num_workers", "2", epochs=1)) == 0
    said = capsys.readouterr().out
    assert "read by none of the 2 processes of --num_workers (the system refuses another one: Cannot allocate" in said
