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
from tests.killing import checkpoint_temporaries, damaged_checkpoints, temporaries, wait_for_a_write
from tests.warm_start import WarmProgram

EPOCHS = 12
KILLS = 8
SAVING = ["--save_interval", "1"]


def typed(corpus: Path, *arguments: str) -> list[str]:
    settings = ["--database_path", str(corpus), "--num_epochs", str(EPOCHS), "--auto_resume", *SAVING, *arguments]
    return [*SMALL_RUN, *settings]


def wait_until_it_trains(program: WarmProgram) -> None:
    """Read its output until the line that it prints before its first step."""
    said = ""
    while not (line := program.stdout.readline()).startswith("Training "):
        said += line
        assert line, said


def finish(folder: Path, corpus: Path, *arguments: str) -> None:
    with WarmProgram(folder, *typed(corpus, *arguments)) as program:
        code, said = program.end()
    assert code == 0, said


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training as a user starts it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command_line(*typed(corpus)), cwd=folder, env=environment, capture_output=True, check=True)
    return run_folder(folder)


def test_killed_at_random_moments_training_ends_with_the_same_bits(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Every other kill is aimed: it is sent as soon as a checkpoint is being written, and some must land in there.

    The others come up to 0.1 s after one of its first three checkpoints, of 36: a fast machine too is not done by then.
    """
    moments, landed_in_a_write = random.Random(20261122), 0
    for number in range(KILLS):
        with WarmProgram(tmp_path, *typed(corpus)) as program:
            wait_until_it_trains(program)
            assert not temporaries(tmp_path), "left by the process that was killed before"
            for _ in range(moments.randint(1, 3)):
                wait_for_a_write(program.is_running, tmp_path)
            if number % 2:
                time.sleep(moments.uniform(0.0, 0.1))
            assert program.is_running(), "it was done before it could be killed"
            program.send_signal(signal.SIGKILL)
            program.end()
        landed_in_a_write += bool(checkpoint_temporaries(tmp_path))
        assert damaged_checkpoints(tmp_path) == {}
    assert landed_in_a_write >= 1
    finish(tmp_path, corpus, "--num_workers", "2")
    assert_same_training(run_folder(tmp_path), undisturbed)
    assert log_rows(run_folder(tmp_path)) == log_rows(undisturbed)
    assert not temporaries(tmp_path)


def test_sigterm_in_mid_epoch_saves_there_and_resumes_to_the_same_bits(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with WarmProgram(tmp_path, *typed(corpus, "--num_workers", "2")) as program:
        wait_until_it_trains(program)
        for _ in range(5):
            wait_for_a_write(program.is_running, tmp_path)
        program.send_signal(signal.SIGTERM)
        code, said = program.end()
    assert code == 143, said
    assert "--auto_resume" in said
    finish(tmp_path, corpus)
    assert_same_training(run_folder(tmp_path), undisturbed)
