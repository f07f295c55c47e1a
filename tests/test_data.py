"""Batches: their bits depend on the position alone, and their workers on the main process alone."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import soundfile
import torch

from training.data.batches import Batch, Crop, TrainingBatches, TrainingView, ValidationBatches
from training.data.loading import NO_LABEL, BatchDataset, BatchKey
from training.data.workers import Place
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ, Waveform, fit_length, read_waveform
from utils.corpora import CorpusPart
from utils.corpora.protocols import Protocol, Trial
from utils.errors import UserError
from utils.seeding import epoch_order

SIZE = 11


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> CorpusPart:
    """Eleven utterances of noise, every third bona fide, some shorter and some longer than the crop."""
    return make_part(tmp_path_factory.mktemp("audio"))


def make_part(folder: Path) -> CorpusPart:
    trials = tuple(Trial("s", f"u{index}", "A01" if index % 3 else "-", index % 3 == 0) for index in range(SIZE))
    for index, trial in enumerate(trials):
        noise = np.random.default_rng(index).uniform(-0.5, 0.5, 30_000 + 10_000 * index)
        soundfile.write(folder / f"{trial.utterance}.wav", noise, SAMPLE_RATE_HZ)
    paths = tuple(folder / f"{trial.utterance}.wav" for trial in trials)
    return CorpusPart("train", Protocol(folder / "p.txt", trials, "0" * 64), paths)


def _training(part: CorpusPart, num_workers: int = 0, seed: int = 1, crop: Crop = "random") -> TrainingBatches:
    return TrainingBatches(part, batch_size=4, seed=seed, crop=crop, num_workers=num_workers)


@pytest.fixture(scope="module")
def with_workers(part: CorpusPart) -> Iterator[TrainingBatches]:
    training = _training(part, num_workers=2)
    yield training
    training.close()


def _assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.waveforms, other.waveforms)


def test_an_epoch_visits_every_utterance_once_in_the_order_of_its_number(part: CorpusPart) -> None:
    visited = torch.cat([batch.indices for batch in _training(part).batches(epoch=3)])
    assert visited.tolist() == epoch_order(seed=1, epoch=3, size=SIZE)


def test_the_last_smaller_batch_is_kept(part: CorpusPart) -> None:
    training = _training(part)
    assert [len(batch.labels) for batch in training.batches(1)] == [4, 4, 3]
    assert training.num_batches_per_epoch == 3


def test_a_batch_has_the_documented_shapes_and_types(part: CorpusPart) -> None:
    batch = next(_training(part).batches(1))
    assert (batch.waveforms.shape, batch.waveforms.dtype) == ((4, CROP_SAMPLES), torch.float32)
    assert (batch.labels.shape, batch.labels.dtype) == ((4,), torch.int64)
    assert (batch.indices.shape, batch.indices.dtype) == ((4,), torch.int64)


def test_bona_fide_is_labelled_1(part: CorpusPart) -> None:
    for batch in _training(part).batches(1):
        assert batch.labels.tolist() == [int(index % 3 == 0) for index in batch.indices.tolist()]


@pytest.mark.parametrize("first_batch", [0, 1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_start_within_an_epoch_gives_the_bits_of_the_whole_epoch(
    part: CorpusPart, with_workers: TrainingBatches, first_batch: int, num_workers: int
) -> None:
    training = with_workers if num_workers else _training(part)
    whole = list(_training(part).batches(2))
    _assert_same(list(training.batches(2, first_batch)), whole[first_batch:])


def test_a_trial_without_a_key_has_a_label_that_is_no_class(part: CorpusPart) -> None:
    unknown = tuple(replace(trial, attack="-", is_bona_fide=None) for trial in part.protocol.trials)
    without_keys = replace(part, protocol=replace(part.protocol, trials=unknown))
    (batch,) = ValidationBatches(without_keys, batch_size=SIZE).batches()
    assert batch.labels.tolist() == [NO_LABEL] * SIZE
    assert NO_LABEL not in (0, 1)


def test_a_start_within_an_epoch_reads_no_earlier_utterance(part: CorpusPart, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counting_read(path: Path) -> Waveform:
        read.append(path)
        return read_waveform(path)

    monkeypatch.setattr("training.data.loading.read_waveform", counting_read)
    list(_training(part).batches(1, first_batch=2))
    assert len(read) == 3


def test_workers_stay_for_the_next_epoch(with_workers: TrainingBatches) -> None:
    list(with_workers.batches(1))
    before = {worker.pid for worker in multiprocessing.active_children()}
    list(with_workers.batches(2))
    assert {worker.pid for worker in multiprocessing.active_children()} == before
    assert len(before) == 2


def test_an_epoch_left_half_way_leaves_nothing_in_the_next(part: CorpusPart, with_workers: TrainingBatches) -> None:
    next(with_workers.batches(1))
    _assert_same(list(with_workers.batches(2)), list(_training(part).batches(2)))


def test_an_iteration_ended_by_a_newer_one_says_so_instead_of_taking_its_batches(part: CorpusPart) -> None:
    training = _training(part)
    older = training.batches(1)
    next(older)
    next(training.batches(2))
    with pytest.raises(RuntimeError, match="ended by a newer one"):
        next(older)


@pytest.mark.parametrize(("epoch", "first_batch"), [(0, 0), (1, -1), (1, 4)])
def test_a_position_outside_the_epoch_is_a_bug(part: CorpusPart, epoch: int, first_batch: int) -> None:
    with pytest.raises(ValueError, match=f"found epoch {epoch}, batch {first_batch}"):
        _training(part).batches(epoch, first_batch)


def _crops(part: CorpusPart, epoch: int, seed: int) -> dict[int, torch.Tensor]:
    return {
        int(index): waveform
        for batch in _training(part, seed=seed).batches(epoch)
        for index, waveform in zip(batch.indices, batch.waveforms, strict=True)
    }


def test_a_random_crop_depends_on_epoch_and_seed(part: CorpusPart) -> None:
    longest = SIZE - 1
    crop = _crops(part, epoch=1, seed=1)[longest]
    assert torch.equal(crop, _crops(part, epoch=1, seed=1)[longest])
    assert not torch.equal(crop, _crops(part, epoch=2, seed=1)[longest])
    assert not torch.equal(crop, _crops(part, epoch=1, seed=2)[longest])


def test_a_random_crop_is_a_piece_of_the_utterance(part: CorpusPart) -> None:
    crop = _crops(part, epoch=1, seed=1)[SIZE - 1].numpy()
    whole = read_waveform(part.audio_paths[SIZE - 1])
    start = int(np.flatnonzero(whole == crop[0])[0])
    np.testing.assert_array_equal(whole[start : start + CROP_SAMPLES], crop)


def test_the_crop_at_the_start_is_the_default(part: CorpusPart) -> None:
    batch = next(TrainingBatches(part, batch_size=4, seed=1).batches(1))
    first = fit_length(read_waveform(part.audio_paths[int(batch.indices[0])]))
    np.testing.assert_array_equal(batch.waveforms[0].numpy(), first)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_goes_through_the_protocol_and_draws_nothing(part: CorpusPart, num_workers: int) -> None:
    validation = ValidationBatches(part, batch_size=4, num_workers=num_workers)
    first, second = list(validation.batches()), list(validation.batches())
    validation.close()
    _assert_same(first, second)
    assert validation.num_batches == len(first) == 3
    assert torch.cat([batch.indices for batch in first]).tolist() == list(range(SIZE))
    for index, waveform in enumerate(torch.cat([batch.waveforms for batch in first])):
        np.testing.assert_array_equal(waveform.numpy(), fit_length(read_waveform(part.audio_paths[index])))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_global_random_state_is_touched(part: CorpusPart, with_workers: TrainingBatches, num_workers: int) -> None:
    training = with_workers if num_workers else _training(part)
    before = (torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state()))
    list(training.batches(1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_audio_arrives_as_the_sentence_the_worker_wrote(tmp_path: Path, num_workers: int) -> None:
    part = make_part(tmp_path)
    part.audio_paths[5].write_bytes(b"not audio")
    training = _training(part, num_workers)
    with pytest.raises(UserError) as refused:
        list(training.batches(1))
    assert str(refused.value).startswith(f"{part.audio_paths[5]}: the audio file cannot be read")
    assert "Traceback" not in str(refused.value)
    training.close()


def test_a_batch_moves_to_a_device_as_a_whole(part: CorpusPart) -> None:
    batch = next(_training(part).batches(1)).to("meta")
    assert {tensor.device.type for tensor in (batch.waveforms, batch.labels, batch.indices)} == {"meta"}


def test_the_dataset_can_be_sent_to_a_spawned_worker(part: CorpusPart) -> None:
    dataset = BatchDataset(part, TrainingView(seed=1, crop="random"))
    copy = pickle.loads(pickle.dumps(dataset))
    found, expected = copy(BatchKey(1, (0, 10)), Place()), dataset(BatchKey(1, (0, 10)), Place())
    assert isinstance(expected, Batch)
    _assert_same([found], [expected])


def test_workers_survive_the_signals_of_a_terminal_or_scheduler(part: CorpusPart) -> None:
    training = _training(part, num_workers=2)
    batches = training.batches(1)
    found = [next(batches)]
    for worker in multiprocessing.active_children():
        for name in ("INT", "TERM", "USR1"):  # sent by another process than the one that trains
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    time.sleep(0.1)
    _assert_same(found + list(batches), list(_training(part).batches(1)))
    training.close()


def test_a_worker_that_is_left_behind_ends_when_its_program_terminates_it(part: CorpusPart) -> None:
    others = set(multiprocessing.active_children())
    training = _training(part, num_workers=2)
    next(training.batches(1))
    workers = [worker for worker in multiprocessing.active_children() if worker not in others]
    for worker in workers:
        worker.terminate()
        worker.join(20)
    assert [worker.is_alive() for worker in workers] == [False, False]


def test_closing_stops_the_workers(part: CorpusPart) -> None:
    before = set(multiprocessing.active_children())
    training = _training(part, num_workers=2)
    batches = training.batches(1)
    next(batches)
    training.close()
    assert set(multiprocessing.active_children()) == before
    with pytest.raises(RuntimeError, match=r"by close\(\)"):
        next(batches)


def _run_script(part: CorpusPart, ending: str) -> subprocess.Popen[str]:
    """Start a process that takes one batch from two workers, prints their process ids and ends as told."""
    script = dedent(
        """
        import multiprocessing, os, pickle, signal, sys, time
        from training.data.batches import TrainingBatches
        part = pickle.loads(bytes.fromhex(sys.argv[1]))
        training = TrainingBatches(part, batch_size=4, seed=1, num_workers=2)
        batches = training.batches(1)
        next(batches)
        print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
        """
    )
    return subprocess.Popen(
        [sys.executable, "-c", script + ending, pickle.dumps(part).hex()],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_program_that_fails_with_its_workers_running_still_ends(part: CorpusPart) -> None:
    process = _run_script(part, "raise ValueError('a bug')")
    assert process.stdout is not None
    process.stdout.readline()
    _, errors = process.communicate(timeout=60)
    assert "a bug" in errors
    assert process.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_workers_die_with_a_killed_program_and_hold_nothing_of_it(part: CorpusPart) -> None:
    process = _run_script(part, "time.sleep(600)")
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.communicate(timeout=30)  # returns when the last process that holds the pipe is gone


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_worker_whose_program_was_killed_while_it_started_ends_too() -> None:
    """Such workers lived for ever: found by hundreds of kills, in the processes that were left."""
    late = (
        "import os; from training.data.workers import _prepare_worker; _prepare_worker(os.getpid()); print('lives on')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", late], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert ended.stdout == ""


# The part has 4 bona fide and 7 spoofed utterances: a balanced epoch is 14 long.
@pytest.mark.parametrize("batch_size", [2, 4, 14, 20])
def test_balanced_batches_have_as_many_of_each_class(part: CorpusPart, batch_size: int) -> None:
    training = TrainingBatches(part, batch_size=batch_size, seed=1, balanced=True)
    batches = list(training.batches(2))
    assert len(batches) == training.num_batches_per_epoch == -(-14 // batch_size)
    assert all(2 * batch.labels.sum() == len(batch.labels) for batch in batches)


def test_a_balanced_epoch_has_each_of_the_larger_class_once_and_no_other_is_forgotten(part: CorpusPart) -> None:
    training = TrainingBatches(part, batch_size=4, seed=1, balanced=True)
    indices = torch.cat([batch.indices for batch in training.batches(1)]).tolist()
    counts = {index: indices.count(index) for index in range(SIZE)}
    assert {counts[index] for index in range(SIZE) if index % 3} == {1}
    assert sorted(counts[index] for index in range(SIZE) if index % 3 == 0) == [1, 2, 2, 2]
    assert indices != torch.cat([batch.indices for batch in training.batches(2)]).tolist(), "each epoch has its order"


def test_balanced_batches_begin_anywhere_with_the_same_bits_for_any_number_of_workers(part: CorpusPart) -> None:
    whole = list(TrainingBatches(part, batch_size=4, seed=1, balanced=True, crop="random").batches(3))
    with_workers = TrainingBatches(part, batch_size=4, seed=1, balanced=True, crop="random", num_workers=2)
    _assert_same(list(with_workers.batches(3, first_batch=2)), whole[2:])
    with_workers.close()


def test_an_utterance_that_comes_again_in_an_epoch_is_augmented_anew() -> None:
    view, waveform = TrainingView(seed=1, crop="random"), np.arange(2 * CROP_SAMPLES, dtype=np.float32)
    starts = [view(waveform, 1, "u", visit)[0] for visit in range(4)]
    assert len(set(starts)) == 4
    assert starts[0] == view(waveform, 1, "u")[0]
