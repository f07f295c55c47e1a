"""A file in a run folder that runs code when it is unpickled: no flag of the program lets it, and each says so."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from main import main
from tests.conftest import SMALL_RUN
from tests.records import record
from training.checkpoints.sealed_file import write_sealed
from training.runs.directory import RunDirectory
from training.settings.options import Options

OPTIONS = Options(database_path="a corpus", ssl_model="compact", batch_size=4, lr=1e-3, num_workers=0, num_epochs=2)
RUN = RunDirectory.of(OPTIONS)
FILE = RUN.epoch_checkpoint(1)


class _RunsCode:
    """Unpickling it makes a folder named `proof`."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("proof",)


def write_plain_pickle() -> None:
    FILE.write_bytes(pickle.dumps({"model_state_dict": _RunsCode()}, protocol=2))


def write_zip_of_torch() -> None:
    torch.save({"model_state_dict": {"weight": _RunsCode()}}, FILE)


def write_old_format_of_torch() -> None:
    torch.save({"model_state_dict": {"weight": _RunsCode()}}, FILE, _use_new_zipfile_serialization=False)


def write_forged_checkpoint() -> None:
    """With a record and a seal that hold: only unpickling can tell."""
    forged = replace(record(FILE, 1), options=OPTIONS).as_dict()
    with FILE.open("w+b") as file:
        write_sealed(file, lambda writer: torch.save({"model_state_dict": _RunsCode()}, writer), forged)


FORMS = [write_plain_pickle, write_zip_of_torch, write_old_format_of_torch, write_forged_checkpoint]


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__.removeprefix("write_").replace("_", " "))
def hostile(request: pytest.FixtureRequest, workplace: Path) -> Path:
    """A run folder whose only checkpoint is the hostile file."""
    RUN.folder.mkdir(parents=True)
    request.param()
    return workplace


def typed_with(corpus: Path, *more: str) -> list[str]:
    return [*SMALL_RUN, "--num_epochs", "2", "--database_path", str(corpus), *more]


@pytest.mark.parametrize(
    "typed",
    [
        ["--list_checkpoints"],
        ["--validate_checkpoints"],
        ["--inspect_checkpoint", str(FILE)],
        ["--resume", "--model_path", str(FILE)],
        ["--model_path", str(FILE)],
    ],
    ids=lambda typed: typed[0],
)
def test_no_flag_runs_its_code_and_none_trains_from_it(
    typed: list[str], hostile: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = FILE.read_bytes()
    code = main(typed_with(corpus, *typed))
    said = "".join(capsys.readouterr())
    assert not (hostile / "proof").exists(), "its code ran"
    assert "Traceback" not in said and FILE.name in said
    assert "Epoch 1/" not in said
    assert FILE.read_bytes() == before
    assert code == (0 if typed == ["--list_checkpoints"] else 1), said


@pytest.mark.parametrize("write", [form for form in FORMS[:-1] if form is not write_plain_pickle])
def test_auto_resume_moves_a_file_without_a_record_aside_unread(
    write: Callable[[], None], workplace: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RUN.folder.mkdir(parents=True)
    write()
    before = FILE.read_bytes()
    code = main(typed_with(corpus, "--auto_resume"))
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "is moved aside, into" in said.out
    assert (RUN.version_folder(1) / FILE.name).read_bytes() == before
    assert not (workplace / "proof").exists(), "its code ran"


@pytest.mark.parametrize(
    "typed", [["--auto_resume"], ["--resume", "--model_path", str(FILE)]], ids=lambda typed: typed[0]
)
def test_a_forged_checkpoint_is_refused_by_what_it_refers_to(
    typed: list[str], workplace: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RUN.folder.mkdir(parents=True)
    write_forged_checkpoint()
    assert main(typed_with(corpus, *typed)) == 1
    said = capsys.readouterr().err
    assert f"{FILE} holds more than tensors and plain values (it refers to posix.mkdir)" in said
    assert not (workplace / "proof").exists(), "its code ran"


def test_the_files_are_as_hostile_as_these_tests_believe(workplace: Path) -> None:
    RUN.folder.mkdir(parents=True)
    for write in FORMS:
        write()
        if write is write_plain_pickle:
            pickle.loads(FILE.read_bytes())
        else:
            torch.load(FILE, weights_only=False)
        Path("proof").rmdir()


def test_resuming_from_a_file_that_is_no_weights_either_says_so_first(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save([1, 2], "numbers.pth")
    assert main(["--resume", "--model_path", "numbers.pth"]) == 1
    said = capsys.readouterr().err
    assert "numbers.pth cannot be used: it holds no tensor" in said
    assert "drop --resume" not in said
