"""Whole runs by several processes, on with another number of them, and their scores: the bits and bytes of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from tests.comparing import bits, differences
from tests.launched import at_step, be_told_to_stop
from tests.several import on_processes
from tests.toy_task import registered
from training.commands import evaluate, score, train
from training.data.loading import BatchDataset
from training.settings.command_line import read_command
from training.settings.requests import AutoResume, Evaluate, NewRun, Resume, Score
from utils.ranks import Ranks

STEPS = ["--batch_size", "2", "--accumulate_steps", "4", "--num_workers", "0", "--seed", "3", "--device", "cpu"]
DETECTION = ["--model_type", "lcnn", "--lr", "1e-3", "--swa", "--num_epochs", "2", *STEPS]
ECHO = ["--model_type", "echo", "--val_interval", "1", *STEPS]


def command(flags: list[str]) -> Callable[[Ranks], int]:
    def carry_out(ranks: Ranks) -> int:
        match request := read_command(flags):
            case NewRun() | AutoResume() | Resume():
                return train.run(request, ranks)
            case Evaluate():
                return evaluate.run(request, ranks)
            case Score():
                return score.run(request, ranks)
        raise AssertionError(request)

    return carry_out


def stopped_after(steps: int, work: Callable[[Ranks], int]) -> Callable[[Ranks], int]:
    """Return the work, of which the last process is told to stop after so many steps."""

    def carry_out(ranks: Ranks) -> int:
        if ranks.index == ranks.count - 1:
            at_step(steps, be_told_to_stop)()  # of this fork alone
        return work(ranks)

    return carry_out


def checkpoints(folder: Path) -> dict[str, Path]:
    (run,) = (folder / "models").iterdir()
    return {path.name: path for path in sorted(run.glob("*checkpoint*.pth"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[str, Path]:
    """Two epochs of two steps by one process, by two, and by four, stopped in mid-epoch, and two after them."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("one", "two", "changing")}
    where, threads = Path.cwd(), torch.get_num_threads()
    torch.set_num_threads(1)
    whole = command([*DETECTION, "--database_path", str(corpus), "--auto_resume"])
    starts = [("one", 1, whole, 0), ("two", 2, whole, 0)]
    starts += [("changing", 4, stopped_after(3, whole), 143), ("changing", 2, whole, 0)]
    try:
        for name, count, work, code in starts:
            os.chdir(folders[name])
            assert on_processes(count, work) == [code] * count
    finally:
        os.chdir(where)
        torch.set_num_threads(threads)
    return folders


@pytest.mark.parametrize("name", ["two", "changing"])
def test_a_run_ends_with_the_bits_of_one_process(name: str, runs: dict[str, Path]) -> None:
    one, found = checkpoints(runs["one"]), checkpoints(runs[name])
    assert {file for file in found if "_step_" not in file} == set(one)
    for file, path in one.items():
        assert differences(bits(found[file]), bits(path), file) == []


def test_two_networks_that_step_in_turn_do_too(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        monkeypatch.chdir(tmp_path / str(count))
        with registered():
            flags = [*ECHO, "--database_path", str(corpus), "--num_epochs", "2"]
            assert on_processes(count, command(flags)) == [0] * count
    one, two = checkpoints(tmp_path / "1"), checkpoints(tmp_path / "2")
    assert set(one) == set(two)
    with registered():
        for file, path in one.items():
            assert differences(bits(two[file]), bits(path), file) == []


def test_each_process_reads_its_own_batches_of_a_step_and_no_others(
    corpus: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = BatchDataset.__call__
    seen: list[tuple[str, int, tuple[int, ...]]] = []

    def noted(dataset: BatchDataset, key: object, place: object) -> object:
        seen.append((dataset.name, key.epoch, key.indices))  # type: ignore[attr-defined]
        return read(dataset, key, place)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchDataset, "__call__", noted)

    def work(ranks: Ranks) -> list[tuple[str, int, tuple[int, ...]]]:
        with registered():
            command([*ECHO, "--database_path", str(corpus), "--num_epochs", "1"])(ranks)
        return seen

    by_process = on_processes(2, work)
    training = [[index for name, _, indices in of_one if name == "train" for index in indices] for of_one in by_process]
    assert sorted(training[0] + training[1]) == list(range(12)), "none twice, none lost"
    assert [len(indices) for indices in training] == [8, 4]  # of four batches and of the two that are left
    validation = [{indices for name, _, indices in of_one if name == "dev"} for of_one in by_process]
    assert not validation[0] & validation[1]
    assert sorted(index for indices in validation[0] | validation[1] for index in indices) == list(range(8))


@pytest.mark.parametrize("count", [2, 3])
def test_eval_writes_the_file_of_one_process_byte_for_byte(
    count: int, runs: dict[str, Path], corpus: Path, workplace: Path
) -> None:
    protocol = corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt"
    flags = ["--eval", "--model_path", str(checkpoints(runs["one"])["best_checkpoint_eer.pth"]), "--num_workers", "0"]
    flags += ["--database_path", str(corpus), "--protocols_path", str(protocol), "--batch_size", "3"]
    for name, by in (("one", 1), ("several", count)):
        assert on_processes(by, command([*flags, "--eval_output", f"{name}.txt", "--device", "cpu"])) == [0] * by
    assert Path("several.txt").read_bytes() == Path("one.txt").read_bytes()
    again = command([*flags, "--eval_output", "several.txt", "--device", "cpu"])
    assert on_processes(count, again) == [0] * count, "nothing is left to score"


def test_score_gives_the_scores_of_one_process(runs: dict[str, Path], corpus: Path) -> None:
    files = [str(path) for path in sorted(corpus.rglob("*.flac"))[:7]]
    checkpoint = checkpoints(runs["one"])["best_checkpoint_eer.pth"]
    flags = ["--score", *files, "--model_path", str(checkpoint), "--device", "cpu", "--batch_size", "2", "--json"]

    def printed(ranks: Ranks) -> str:
        said = StringIO()
        with redirect_stdout(said):
            command(flags)(ranks)
        return said.getvalue()

    (alone,), (first, *others) = on_processes(1, printed), on_processes(3, printed)
    assert json.loads(first) == json.loads(alone)
    assert others == ["", ""]
