"""What a kill leaves is cleared up by the next start or the same command; what a living process writes stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from main import main
from tests.asking import asked_training
from tests.conftest import REPOSITORY
from tests.toy_task import registered
from training.evaluation.finished_scores import look_at, write_finished
from training.evaluation.origin import Origin
from training.export.whole_checkpoint import require_free
from training.runs.retention import left_to_prune
from training.runs.survey import survey_folder
from utils.atomic_files import TEMPORARY_PREFIX


@pytest.fixture(autouse=True)
def known(workplace: Path) -> Iterator[None]:
    with registered():
        yield


def train(corpus: Path, epochs: int, *more: str) -> int:
    flags = ["--model_type", "echo", "--batch_size", "4", "--num_workers", "0", "--num_epochs", str(epochs)]
    return main([*flags, "--database_path", str(corpus), *more])


def stray(folder: Path, name: str) -> Path:
    """Leave in a folder what a process that is killed leaves while it writes a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{TEMPORARY_PREFIX}{name}-1-0123abcd"
    path.write_text("half of it")
    return path


@contextmanager
def written_elsewhere(path: Path) -> Iterator[Path]:
    """Yield the temporary of a file that another, living process is writing."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom utils.atomic_files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file: print(file.name, flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path.absolute())],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        yield Path(writer.stdout.readline().rstrip("\n"))
        writer.communicate("\n")
    assert path.exists() and writer.returncode == 0, "the other process was disturbed"


def strays_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(f"{TEMPORARY_PREFIX}*"))


def test_a_new_version_of_an_experiment_clears_up_the_others(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = Path("outputs/echoes/checkpoints")
    for number in (0, 1):
        stray(versions / f"version_{number}", "checkpoint_epoch_1.pth")
        stray(versions / f"version_{number}" / "attention_epoch_1", "spoof.png")
    (versions / "version_1" / ".lock").touch()  # a power cut took the other's name
    code = (
        "import sys\nfrom pathlib import Path\nfrom training.runs.lock import RunLock\n"
        "with RunLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, str((versions / "version_1" / ".lock").absolute())]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as trains:
        assert trains.stdout is not None and trains.stdout.readline() == "held\n"
        assert train(corpus, 1, "--experiment", "echoes") == 0
        trains.communicate("\n")
    assert strays_below(versions / "version_0") == [] and len(strays_below(versions / "version_1")) == 2
    assert f"Removed {versions}/version_0/.tmp-checkpoint_epoch_1.pth" in capsys.readouterr().out
    assert train(corpus, 1, "--experiment", "echoes") == 0
    assert strays_below(versions) == []


def test_a_start_clears_up_its_heatmap_folders_and_leaves_what_another_process_writes_beside_it(corpus: Path) -> None:
    assert train(corpus, 1) == 0
    (run,) = Path("models").iterdir()
    stray(run / "attention_epoch_1", "layer_importance_spoof.png")
    stray(run, "checkpoint_epoch_2.pth")
    with written_elsewhere(run / "best_checkpoint_scores.txt") as live:
        assert train(corpus, 1, "--fresh_start") == 0
        assert strays_below(run) == [live.name]


def test_an_export_clears_up_what_a_killed_one_of_the_same_file_left(tmp_path: Path) -> None:
    stray(tmp_path, "detector.onnx")
    other = stray(tmp_path, "detector.onnx-2")
    with written_elsewhere(tmp_path / "another.onnx") as live:
        require_free(tmp_path / "detector.onnx")
        require_free(tmp_path / "another.onnx")
        assert strays_below(tmp_path) == sorted([live.name, other.name])


# Retention


def test_a_run_is_pruned_at_its_end_where_it_was_killed_before_that(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed between the last name and the deletion, --save_best_only had a third file for good."""
    assert train(corpus, 2, "--save_best_only") == 0
    (run,) = Path("models").iterdir()
    at_the_end = sorted(path.name for path in run.iterdir())
    (run / "checkpoint_epoch_2.pth").hardlink_to(run / "last_checkpoint.pth")
    assert train(corpus, 2, "--save_best_only", "--auto_resume") == 0
    assert "Left undone by a killed process, and done now: checkpoint_epoch_2.pth is there" in capsys.readouterr().out
    assert sorted(path.name for path in run.iterdir()) == at_the_end
    assert train(corpus, 2, "--save_best_only", "--auto_resume") == 0
    assert "Left undone" not in capsys.readouterr().out


def test_what_a_run_was_resumed_from_goes_like_others_once_it_is_not_needed(corpus: Path) -> None:
    assert train(corpus, 2, "--save_best_only") == 0
    (run,) = Path("models").iterdir()
    (run / "checkpoint_epoch_2.pth").hardlink_to(run / "last_checkpoint.pth")
    source = str(run / "checkpoint_epoch_2.pth")
    assert train(corpus, 3, "--save_best_only", "--resume", "--model_path", source) == 0
    (longer,) = Path("models").glob("echo_DF_CCE_3_*")
    names = sorted(path.name for path in longer.glob("*.pth"))
    assert names == ["best_checkpoint_closeness.pth", "best_model_closeness.pth", "last_checkpoint.pth"]


def test_nothing_is_deleted_at_the_end_that_the_run_or_the_command_keeps(corpus: Path) -> None:
    assert train(corpus, 3) == 0
    (run,) = Path("models").iterdir()
    found = survey_folder(run)
    newest = found.checkpoints[-1]
    fewer = asked_training("--model_type", "echo", "--save_best_only").options
    assert left_to_prune(found.checkpoints, newest, fewer) == [], "of a run that was to keep them"
    assert train(corpus, 3, "--auto_resume", "--keep_last_n", "1") == 0
    assert len(list(run.glob("checkpoint_epoch_*.pth"))) == 3


# Scores

ORIGIN = Origin({"checkpoint": "abc", "numerics": "1"}, {})


def finished(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.mark.parametrize("number", range(1, 5))
def test_earlier_scores_keep_their_origin_wherever_a_process_is_killed_that_moves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Two renames, then two files: without its origin a score file counts as one of something else."""
    output = tmp_path / "scores.txt"
    write_finished(output, "a 1\n", ORIGIN, [])
    rename, left = os.rename, [number]

    class KilledError(BaseException): ...

    def counted(*arguments: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise KilledError
        rename(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", counted)
    monkeypatch.setattr(os, "replace", counted)
    other = Origin({"checkpoint": "xyz", "numerics": "1"}, {})
    with pytest.raises(KilledError):
        write_finished(output, "a 2\n", other, [])
    monkeypatch.undo()
    write_finished(output, "a 2\n", other, [])
    assert sorted(finished(tmp_path)) == [
        "scores.txt",
        "scores.txt.origin.json",
        "scores.version_1.txt",
        "scores.version_1.txt.origin.json",
    ]
    earlier = look_at(tmp_path / "scores.version_1.txt", ORIGIN)
    now = look_at(output, other)
    assert earlier and earlier.is_same and now and now.is_same
