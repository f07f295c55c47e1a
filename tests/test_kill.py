"""A real training process, killed for real at random moments, ends with the same bits as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.comparing import assert_same_training, log_rows
from tests.conftest import SMALL_RUN, command_line
from tests.killing import checkpoint_temporaries, damaged_checkpoints, temporaries, wait_for_a_write

EPOCHS = 12
KILLS = 8
SAVING = ["--save_interval", "1"]


def start(folder: Path, corpus: Path, *arguments: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    settings = ["--database_path", str(corpus), "--num_epochs", str(EPOCHS), "--auto_resume", *SAVING, *arguments]
    return subprocess.Popen(
        command_line(*SMALL_RUN, *settings),
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


def is_running(process: subprocess.Popen[str]) -> bool:
    return process.poll() is None


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
    """Every other kill is aimed: it is sent as soon as a checkpoint is being written, and some must land in there."""
    moments, landed_in_a_write = random.Random(20261122), 0
    for number in range(KILLS):
        process = start(tmp_path, corpus)
        wait_until_it_trains(process)
        assert not temporaries(tmp_path), "left by the process that was killed before"
        time.sleep(moments.uniform(0.0, 1.2 if number % 2 else 0.3))
        if number % 2 == 0:
            wait_for_a_write(partial(is_running, process), tmp_path)
        assert is_running(process), "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        landed_in_a_write += bool(checkpoint_temporaries(tmp_path))
        assert damaged_checkpoints(tmp_path) == {}
    assert landed_in_a_write >= 1
    finish(start(tmp_path, corpus, "--num_workers", "2"))
    assert_same_training(run_folder(tmp_path), undisturbed)
    assert log_rows(run_folder(tmp_path)) == log_rows(undisturbed)
    assert not temporaries(tmp_path)


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
