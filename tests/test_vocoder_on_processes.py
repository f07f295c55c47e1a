"""A vocoder trained by several processes, stopped between its two updates, on with another number: the bits of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models import running_statistics
from models.running_statistics import OfBatch, SetAsideStatistics
from tests.comparing import bits, differences
from tests.loading import load_payload
from tests.several import on_processes
from tests.test_metric_discriminator import likeness
from tests.test_vocoder import narrow_vocoder
from training.commands import train
from training.loop import step
from training.settings.command_line import read_command
from training.settings.requests import AutoResume
from training.state import loss_scaler
from training.tasks import judged_vocoder
from training.tasks.vocoder import VocoderTask
from utils.ranks import Ranks

FLAGS = ["--model_type", "hifigan", "--vocoder_size", "small", "--num_workers", "0", "--device", "cpu", "--auto_resume"]
STEPS = ["--batch_size", "1", "--accumulate_steps", "4", "--num_epochs", "2"]  # of six utterances: of four, of two
FIRST, SECOND = VocoderTask.phases


@pytest.fixture(autouse=True, scope="module")
def narrow() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with narrow_vocoder():
        yield
    torch.set_num_threads(threads)


def trained_by(count: int, folder: Path, corpus: Path, *more: str, stop_at: tuple[int, str] | None = None) -> list[int]:
    """Train by so many processes and return their exit codes; `stop_at` is a step, from 0, and its phase.

    The last process is told to stop there, before it computes what that phase updates by.
    """

    def work(ranks: Ranks) -> int:
        if stop_at and ranks.index == ranks.count - 1:
            be_stopped_at(*stop_at)  # of this fork alone
        request = read_command([*FLAGS, *STEPS, "--database_path", str(corpus), *more])
        assert isinstance(request, AutoResume)
        return train.run(request, ranks)

    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return on_processes(count, work)


def be_stopped_at(step: int, phase: str) -> None:
    original = VocoderTask.loss

    def loss_and_signal(task: VocoderTask, state: Any, batch: Any, given: Any) -> Any:
        if (state.step, given.phase) == (step, phase):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, state, batch, given)

    VocoderTask.loss = loss_and_signal  # type: ignore[method-assign, assignment]


def checkpoints(folder: Path) -> dict[str, Path]:
    (run,) = (folder / "models").iterdir()
    return {path.name: path for path in sorted(run.glob("*checkpoint*.pth")) if "_step_" not in path.name}


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one process, of two epochs of two steps."""
    place = tmp_path_factory.mktemp("alone")
    assert trained_by(1, place, corpus) == [0]
    return place


def assert_same(folder: Path, alone: Path) -> None:
    found, expected = checkpoints(folder), checkpoints(alone)
    assert set(found) == set(expected)
    for name, path in expected.items():
        assert differences(bits(found[name]), bits(path), name) == []


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_processes_ends_with_the_bits_of_one(
    count: int, alone: Path, corpus: Path, tmp_path: Path
) -> None:
    """In the second step of an epoch the last of two has no batch, and the last two of four have none."""
    assert trained_by(count, tmp_path, corpus) == [0] * count
    assert_same(tmp_path, alone)


def test_with_a_loss_scale_and_a_metric_discriminator_too(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step overflows; each process measures what its own batches are like, of which one has no figure."""
    monkeypatch.setattr(judged_vocoder, "required_pesq", lambda: likeness)
    monkeypatch.setattr(loss_scaler, "INITIAL_SCALE", 2.0**13)
    more = ["--num_epochs", "1", "--metric_discriminator", "--precision", "fp16"]
    for count in (1, 2):
        assert trained_by(count, tmp_path / str(count), corpus, *more) == [0] * count
    assert_same(tmp_path / "2", tmp_path / "1")
    payload = load_payload(next(iter(checkpoints(tmp_path / "2").values())))
    assert payload["scaler_state_dict"]["scale"] < 2.0**13


def test_two_processes_that_are_stopped_between_the_updates_finish_both_and_one_goes_on(
    alone: Path, corpus: Path, tmp_path: Path
) -> None:
    assert trained_by(2, tmp_path, corpus, stop_at=(0, SECOND)) == [143, 143]
    (run,) = (tmp_path / "models").iterdir()
    payload = load_payload(run / "last_checkpoint.pth")
    updates = {int(payload[f"{phase}_state_dict"]["state"][0]["step"]) for phase in (FIRST, SECOND)}
    assert updates == {1}
    assert trained_by(4, tmp_path, corpus, stop_at=(2, FIRST)) == [143] * 4
    assert trained_by(1, tmp_path, corpus) == [0]
    assert_same(tmp_path, alone)


def vectors_that_each_batch_moves_further(patched: pytest.MonkeyPatch) -> None:
    """What the published code does in a process that takes some of a step's batches."""
    patched.setattr(running_statistics, "SetsAside", SetAsideStatistics)


def vectors_that_only_batches_of_the_own_process_move(patched: pytest.MonkeyPatch) -> None:
    told = step._told

    def own_alone(own: list[Any], norm: Any, ranks: Ranks) -> Any:
        norm, parts = told(own, norm, ranks)
        if own:
            return norm, parts
        return norm, [replace(part, statistics=OfBatch((), part.statistics.numbers)) for part in parts]

    patched.setattr(step, "_told", own_alone)
    patched.setattr(running_statistics, "zip", lambda *lists, strict: zip(*lists, strict=False), raising=False)


@pytest.mark.parametrize(
    "mutant", [vectors_that_each_batch_moves_further, vectors_that_only_batches_of_the_own_process_move]
)
def test_it_shows_when_the_spectral_norm_depends_on_the_process(
    mutant: Callable[[pytest.MonkeyPatch], None], corpus: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        mutant(patched)
        with pytest.raises(AssertionError, match=r"process 1 does not hold the state of process 0 .*msd\."):
            trained_by(2, tmp_path, corpus)
