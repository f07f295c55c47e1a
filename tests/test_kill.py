"""A real training process, killed for real at random moments, ends with the same bits as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.comparing import assert_same_training, log_rows
from tests.conftest import SMALL_RUN, command_line
from training.checkpoints.sealed_file import broken_seal
from utils.atomic_files import TEMPORARY_PREFIX

EPOCHS = 12
KILLS = 8


def start(folder: Path, corpus: Path, *arguments: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    settings = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", str(EPOCHS), "--auto_resume", *arguments]
    return subprocess.Popen(
        command_line(*settings),
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until_it_trains(process: subprocess.Popen[str]) -> str:
    """Read its output until the line that it prints before its first step, and return what it said."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if line.startswith("Training "):
            break
    return said


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(folder, corpus))
    return run_folder(folder)


def test_killed_at_random_moments_training_ends_with_the_same_bits(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    moments = random.Random(20261122)
    for _ in range(KILLS):
        process = start(tmp_path, corpus)
        wait_until_it_trains(process)
        time.sleep(moments.uniform(0.0, 1.2))
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in (tmp_path / "models").rglob("*.pth"):
            assert broken_seal(path) is None, f"{path} is under a checkpoint's name and damaged"
    finish(start(tmp_path, corpus, "--num_workers", "2"))
    assert_same_training(run_folder(tmp_path), undisturbed)
    assert log_rows(run_folder(tmp_path)) == log_rows(undisturbed)
    assert not list(tmp_path.rglob(f"{TEMPORARY_PREFIX}*"))


def test_sigterm_in_mid_epoch_saves_there_and_resumes_to_the_same_bits(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, corpus, "--num_workers", "2")
    wait_until_it_trains(process)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "--auto_resume" in output
    finish(start(tmp_path, corpus))
    assert_same_training(run_folder(tmp_path), undisturbed)
