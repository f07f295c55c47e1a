"""Disks that refuse late, or do not give back what they took: at a close, while a file is sealed, after a check."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from tests.comparing import bits, differences
from tests.faulty_calls import needs_compiler, run_code, where_it_fails
from tests.toy_task import EchoTask, registered
from training.checkpoints import file_bytes
from training.checkpoints.examined import examine
from training.checkpoints.file_bytes import FileBytes, TakingReader
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.sealed_file import SequentialWriter, broken_seal, write_sealed
from training.state.train_state import Observed


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered():
        yield


def train(corpus: Path, epochs: int, *more: str) -> int:
    flags = ["--model_type", "echo", "--batch_size", "4", "--num_workers", "0", "--num_epochs", str(epochs)]
    return main([*flags, "--database_path", str(corpus), *more])


def the_run(place: Path = Path()) -> Path:
    (folder,) = (place / "models").iterdir()
    return folder


def epochs_in(folder: Path) -> list[str]:
    found = sorted(folder.glob("*.pth"))
    assert [broken_seal(path) for path in found] == [None] * len(found)
    return sorted(path.stem.rpartition("_")[2] for path in found if path.name.startswith("checkpoint_epoch"))


def best_epoch(folder: Path) -> int:
    (path,) = folder.glob("best_checkpoint_*.pth")
    found = examine(path)
    assert isinstance(found, CheckpointRecord)
    return found.epoch


# Closes


@needs_compiler
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=os.strerror)
def test_a_run_that_is_done_is_done_whatever_the_close_of_its_lock_file_says(tmp_path: Path, number: int) -> None:
    """NFS tells of a full disk at the close: it used to be a traceback after the last epoch, and exit code 1."""
    code = "from pathlib import Path\nfrom training.runs.lock import RunLock\nwith RunLock(Path('.lock')): pass"
    done = run_code(code, tmp_path, where_it_fails("close", "/.lock", number))
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
def test_scores_that_are_written_are_written_whatever_the_close_of_their_lock_file_says(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom training.evaluation.scoring_lock import ScoringLock\n"
        "with ScoringLock(Path('scores.txt')): pass"
    )
    done = run_code(code, tmp_path, where_it_fails("close", "scores.txt.lock", errno.EIO))
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])


class _FullAtTheEnd(io.FileIO):
    """A file on NFS: that the disk is full shows when it is closed."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_the_disk_refuses_at_the_close_is_one_warning_and_the_run_is_done(
    workplace: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Path.open

    def opened(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        is_log = mode == "wb" and "tfevents" in path.name
        return _FullAtTheEnd(path, "w") if is_log else original(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", opened)
    assert train(corpus, 1) == 0
    said = capsys.readouterr().out
    assert said.count("[WARNING]") == said.count("may not be complete: No space left on device.") == 1


# Sealing


def test_a_file_is_sealed_without_being_read() -> None:
    """One EIO there made zipfile take the archive for none, and its end was written behind it again."""
    content = io.BytesIO()

    class OnlyWritten:
        def write(self, data: Any, /) -> int:
            return content.write(data)

        def flush(self) -> None: ...

    write_sealed(OnlyWritten(), lambda writer: torch.save({"weight": torch.ones(3)}, writer), {"epoch": 3})
    content.seek(0)
    assert torch.load(content, weights_only=True)["weight"].tolist() == [1, 1, 1]


def test_what_is_no_archive_gets_no_seal() -> None:
    with pytest.raises(Exception, match="not a zip file"):
        write_sealed(io.BytesIO(), lambda writer: writer.write(b"PK\x01\x02 half of a directory"), {"epoch": 3})


def test_an_entry_whose_content_begins_like_a_directory_is_written_like_others() -> None:
    """torch writes each tensor in one go, and the directory begins with a write of its own."""
    odd = torch.frombuffer(bytearray(b"PK\x01\x02PK\x03\x04" * 4), dtype=torch.uint8)
    file = io.BytesIO()
    write_sealed(
        file, lambda writer: torch.save({"a": odd, "b": torch.ones(3), "c": odd.clone()}, writer), {"epoch": 3}
    )
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["a"].equal(odd) and loaded["b"].tolist() == [1, 1, 1] and loaded["c"].equal(odd)


def refused(monkeypatch: pytest.MonkeyPatch, times: Mapping[int, int], error: Exception) -> None:
    """Let the first saves of some epochs fail while they are sealed, so many times."""
    left = dict(times)

    def sealed(file: Any, save: Callable[[Any], None], record: dict[str, Any]) -> None:
        if left.get(record["epoch"]) and record["kind"] == "epoch":
            left[record["epoch"]] -= 1
            save(SequentialWriter(file))
            raise error
        write_sealed(file, save, record)

    monkeypatch.setattr("training.saving.store.write_sealed", sealed)


FAULT = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("error", [FAULT, IndexError("list index out of range")], ids=repr)
def test_whatever_sealing_raises_is_a_refused_save_and_a_last_one_is_tried_once_more(
    workplace: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    refused(monkeypatch, {1: 1}, error)
    assert train(corpus, 1) == 0
    said = capsys.readouterr()
    reason = "Input/output error" if error is FAULT else "IndexError: list index out of range"
    assert f"checkpoint_epoch_1.pth could not be saved: {reason}; earlier checkpoints are untouched." in said.out
    assert "Traceback" not in said.err
    assert epochs_in(the_run()) == ["1"] and best_epoch(the_run()) == 1


# A best epoch that was refused


@pytest.fixture
def first_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each epoch be worse than the one before."""
    monkeypatch.setattr(EchoTask, "validated", _worse_and_worse)


def _worse_and_worse(task: EchoTask, step: int, observed: Observed) -> tuple[dict[str, float], dict[str, Any]]:
    return {"val_closeness": 10.0 - step, "val_doubt": 0.0}, {"furthest": {"step": step}, "distances": torch.ones(1)}


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs, of which the first is the best."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with registered(), pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(EchoTask, "validated", _worse_and_worse)
        assert train(corpus, 3) == 0
    return the_run(folder)


# (how often the save of an epoch is refused, the epochs that are there at the end)
REFUSALS = [({1: 1}, ["1", "2", "3"]), ({1: 2, 2: 1}, ["1", "3"]), ({1: 3}, ["1", "2", "3"])]


@pytest.mark.parametrize("how", [[], ["--sync_save"]], ids=["background", "sync"])
@pytest.mark.parametrize(("times", "saved"), REFUSALS, ids=["once", "with the next", "until the end"])
@pytest.mark.usefixtures("first_is_best")
def test_the_best_epoch_that_was_refused_is_saved_later_from_the_state_that_it_had(
    workplace: Path,
    corpus: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: list[str],
    times: dict[int, int],
    saved: list[str],
) -> None:
    refused(monkeypatch, times, FAULT)
    assert train(corpus, 3, *how) == 0
    said = capsys.readouterr().out
    assert "checkpoint_epoch_1.pth could not be saved: Input/output error" in said
    assert "checkpoint_epoch_1.pth is saved now, on a second try." in said
    folder = the_run()
    assert (epochs_in(folder), best_epoch(folder)) == (saved, 1)
    lost = [epoch for epoch in (1, 2, 3) if str(epoch) not in saved]
    for epoch in saved:
        name = f"checkpoint_epoch_{epoch}.pth"
        found = bits(folder / name)
        assert found["lost_epochs"] == (lost if epoch == "3" else [1] if times == {1: 3} and epoch == "2" else [])
        expected = bits(undisturbed / name)
        same = {"lost_epochs": [], "best_val_closeness": 0}
        assert differences({**found, **same}, {**expected, **same}) == []
    last = examine(folder / "last_checkpoint.pth")
    assert isinstance(last, CheckpointRecord) and last.best and (last.epoch, last.best.epoch) == (3, 1)
    assert train(corpus, 3, "--auto_resume") == 0
    assert best_epoch(folder) == 1, "the next start finds nothing to mend"
    assert "Left undone" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "saved", "is_tried"),
    [([], ["1", "2", "3"], True), (["--save_best_only"], [], False)],
    ids=["every epoch stays", "the best one stays"],
)
def test_a_best_epoch_that_was_refused_and_is_beaten_is_tried_again_where_it_would_stay(
    workplace: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    saved: list[str],
    is_tried: bool,
) -> None:
    refused(monkeypatch, {1: 2}, FAULT)
    assert train(corpus, 3, *flags) == 0
    assert (epochs_in(the_run()), best_epoch(the_run())) == (saved, 3)
    assert ("second try" in capsys.readouterr().out) == is_tried


# A file that cannot be read any more after it was checked


@pytest.fixture
def goes_bad(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let a file be unreadable from when it is loaded on; as if it were too large to stay in memory."""
    monkeypatch.setattr(file_bytes, "CHUNKS_KEPT", 2)
    monkeypatch.setattr(file_bytes, "CHUNK_BYTES", 1 << 12)
    read, take, bad = os.preadv, FileBytes.take, set[int]()

    def arrange(path: Path) -> None:
        file = path.stat().st_ino

        def taken(content: FileBytes) -> TakingReader:
            bad.update({file} & {content.status.st_ino})
            return take(content)

        def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
            if os.fstat(descriptor).st_ino in bad:
                raise FAULT
            return read(descriptor, buffers, offset)

        monkeypatch.setattr(FileBytes, "take", taken)
        monkeypatch.setattr(os, "preadv", preadv)

    return arrange


def test_auto_resume_goes_on_from_an_older_checkpoint_where_the_newest_cannot_be_loaded(
    workplace: Path, corpus: Path, goes_bad: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus, 2) == 0
    goes_bad(the_run() / "checkpoint_epoch_2.pth")
    assert train(corpus, 3, "--auto_resume") == 0
    said = capsys.readouterr().out
    assert "checkpoint_epoch_2.pth is damaged: it cannot be read (Input/output error)" in said
    assert "Looking for an older checkpoint" in said
    assert "Plan: resume" in said.split("Looking for")[1] and "checkpoint_epoch_1.pth at epoch 2" in said
    (longer,) = Path("models").glob("echo_DF_CCE_3_*")
    assert epochs_in(longer) == ["1", "2", "3"]


def test_a_file_that_was_named_and_cannot_be_loaded_is_refused_in_a_sentence(
    workplace: Path, corpus: Path, goes_bad: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus, 2) == 0
    goes_bad(the_run() / "checkpoint_epoch_2.pth")
    before = sorted(path.name for path in the_run().iterdir())
    capsys.readouterr()
    assert train(corpus, 3, "--resume", "--model_path", str(the_run() / "checkpoint_epoch_2.pth")) == 1
    error = capsys.readouterr().err
    assert error.endswith("checkpoint_epoch_2.pth is damaged: it cannot be read (Input/output error)\n")
    assert error.count("\n") == 1 and sorted(path.name for path in the_run().iterdir()) == before
