"""--validate_checkpoints reads every bit, says a line per file, exits 1 if one is bad, and changes nothing on disk."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from tests.conftest import REPOSITORY
from tests.records import cut, flip_a_bit, record, write_checkpoint, write_foreign_weights
from training.checkpoints.checking import Verdict, check_file, check_files
from training.checkpoints.record import REQUIRED_KEYS, CheckpointRecord, Kind
from training.checkpoints.sealed_file import write_sealed
from training.runs.directory import RunDirectory
from training.settings.options import Options

RUN = RunDirectory.of(Options())
MODEL: dict[str, Any] = {"layer.weight": torch.arange(64.0), "layer.bias": torch.zeros(3)}
pytestmark = pytest.mark.usefixtures("workplace")


def write_whole(path: Path, made: CheckpointRecord, **changes: Any) -> Path:
    """Write a sealed file with every key of a full checkpoint; a key changed to None is left out."""
    payload = dict.fromkeys(REQUIRED_KEYS, 1) | {"model_state_dict": MODEL} | changes
    payload = {key: value for key, value in payload.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w+b") as file:
        write_sealed(file, lambda writer: torch.save(payload, writer), made.as_dict())
    return path


def write_epoch(number: int) -> Path:
    return write_whole(RUN.epoch_checkpoint(number), record("", number))


def write_run() -> None:
    """Write two epochs, the best linked to the second, and its weights."""
    write_epoch(2)
    write_epoch(10)
    os.link(RUN.epoch_checkpoint(10), RUN.best_checkpoint)
    write_checkpoint(RUN.best_weights, record("", 10, kind=Kind.WEIGHTS))


def validated(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> list[str]:
    assert main(["--validate_checkpoints", *map(str, arguments)]) == code
    output = capsys.readouterr()
    assert output.err == ""
    return output.out.splitlines()


def test_each_file_of_the_run_that_the_flags_name_has_a_line_in_order_and_a_summary_ends_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run()
    *lines, summary = validated(capsys)
    assert lines == [
        f"{RUN.epoch_checkpoint(2)}: ok",
        f"{RUN.epoch_checkpoint(10)}: ok",
        f"{RUN.best_checkpoint}: ok (the same file as checkpoint_epoch_10.pth)",
        f"{RUN.best_weights}: weights only: ok",
    ]
    assert re.fullmatch(r"4 files checked, \d+\.\d kB in \d+\.\d s, .*B/s: all good", summary)


def test_a_single_file_can_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    lines = validated(capsys, write_epoch(1))
    assert lines[0] == f"{RUN.epoch_checkpoint(1)}: ok" and lines[1].startswith("1 file checked")


def test_files_of_runs_that_were_moved_aside_are_checked_too(capsys: pytest.CaptureFixture[str]) -> None:
    write_epoch(1)
    for version in (10, 2):
        write_whole(RUN.version_folder(version) / "checkpoint_epoch_3.pth", record("", 3))
    flip_a_bit(RUN.version_folder(10) / "checkpoint_epoch_3.pth")
    lines = validated(capsys, RUN.folder, code=1)
    assert lines[1:4] == [
        f"{RUN.folder}/version_2: an earlier run, moved aside, 1 file",
        f"{RUN.folder}/version_2/checkpoint_epoch_3.pth: ok",
        f"{RUN.folder}/version_10: an earlier run, moved aside, 1 file",
    ]
    assert lines[4].startswith(f"{RUN.folder}/version_10/checkpoint_epoch_3.pth: DAMAGED: its checksum")
    assert lines[5].endswith(": 1 BAD")


@pytest.mark.parametrize(("damage", "words"), [(flip_a_bit, "its checksum does not match"), (cut, "it was cut short")])
def test_a_damaged_file_is_named_with_the_reason_and_the_others_are_checked_all_the_same(
    damage: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(write_epoch(1))
    write_epoch(2)
    lines = validated(capsys, code=1)
    assert lines[0].startswith(f"{RUN.epoch_checkpoint(1)}: DAMAGED: {words}")
    assert lines[1] == f"{RUN.epoch_checkpoint(2)}: ok"


def test_a_link_that_leads_nowhere_and_an_empty_file_are_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    write_epoch(1)
    RUN.epoch_checkpoint(2).symlink_to("gone.pth")
    RUN.epoch_checkpoint(3).touch()
    lines = validated(capsys, code=1)
    assert lines[1] == f"{RUN.epoch_checkpoint(2)}: DAMAGED: it cannot be read (No such file or directory)"
    assert lines[2] == f"{RUN.epoch_checkpoint(3)}: DAMAGED: it is empty"


def test_2000_random_bit_flips_are_all_found(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "checkpoint.pth", record("", 1))
    data, chance = path.read_bytes(), random.Random(1)
    for _ in range(2000):
        position, bit = chance.randrange(len(data)), chance.randrange(8)
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :])
        assert check_file(path).verdict is Verdict.DAMAGED, (position, bit)


# A file whose bits are right can still be none that training could use.
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer_state_dict": None}, "it lacks optimizer_state_dict"),
        ({"random_states": None, "history": None}, "it lacks history, random_states"),
        ({"model_state_dict": None}, "it lacks model_state_dict"),
        ({"model_state_dict": {}}, "its model_state_dict is empty"),
        ({"args": types.SimpleNamespace(lr=1)}, "it refers to types.SimpleNamespace"),
    ],
    ids=str,
)
def test_an_undamaged_file_that_lacks_something_is_unusable(
    changes: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_whole(RUN.epoch_checkpoint(1), record("", 1), **changes)
    line = validated(capsys, code=1)[0]
    assert line.startswith(f"{path}: UNUSABLE: ") and words in line


def test_a_file_of_a_newer_format_is_unusable_and_not_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    class Newer(CheckpointRecord):
        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"format": 99}

    write_whole(RUN.epoch_checkpoint(1), Newer(**vars(record("", 1))))
    assert "UNUSABLE: it has format 99 and this version reads up to" in validated(capsys, code=1)[0]


def test_weights_of_other_programs_are_ok_and_damage_in_them_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    write_foreign_weights(Path("good.pth"))
    write_foreign_weights(Path("bad.pth"))
    flip_a_bit(Path("bad.pth"))
    assert validated(capsys, "good.pth")[0] == "good.pth: weights only: ok"
    assert validated(capsys, "bad.pth", code=1)[0].startswith("bad.pth: DAMAGED: its entry")


def test_a_format_without_checksums_is_said_to_be_checked_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(MODEL, "old.pth", _use_new_zipfile_serialization=False)
    note = "a format without checksums: only its structure was checked"
    assert validated(capsys, "old.pth")[0] == f"old.pth: weights only: ok ({note})"
    cut(Path("old.pth"))
    assert validated(capsys, "old.pth", code=1)[0].startswith("old.pth: DAMAGED: it")


def test_a_file_without_tensors_is_unusable(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"epoch": 3}, "notes.pth")
    assert validated(capsys, "notes.pth", code=1)[0] == "notes.pth: UNUSABLE: it holds no tensor"


@pytest.mark.parametrize("place", [[], ["models"], ["models/nowhere"], ["nowhere.pth"]], ids=str)
def test_nothing_to_check_is_an_error_that_names_the_runs_with_checkpoints(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_whole(Path("models/other/checkpoint_epoch_1.pth"), record("", 1))
    assert main(["--validate_checkpoints", *place]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert (place[0] if place else str(RUN.folder)) in output.err
    assert "runs that have some: models/other" in output.err


def test_json_is_one_document_with_a_verdict_for_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    write_run()
    flip_a_bit(RUN.epoch_checkpoint(2))
    document = json.loads("\n".join(validated(capsys, "--json", code=1)))
    assert list(document) == ["files", "bad", "seconds"]
    assert [(Path(file["path"]).name, file["verdict"]) for file in document["files"]] == [
        ("checkpoint_epoch_2.pth", "damaged"),
        ("checkpoint_epoch_10.pth", "ok"),
        ("best_checkpoint_eer.pth", "ok"),
        ("best_model_eer.pth", "weights_only"),
    ]
    assert "checksum" in document["files"][0]["reason"] and document["files"][1]["reason"] is None
    assert document["files"][1]["bytes"] == RUN.epoch_checkpoint(10).stat().st_size
    assert document["bad"] == 1 and document["seconds"] >= 0


def test_validation_creates_and_changes_nothing() -> None:
    write_run()
    cut(RUN.epoch_checkpoint(2))
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    assert main(["--validate_checkpoints"]) == 1
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_the_lines_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    assert main(["--validate_checkpoints"]) == 0
    assert "checking" in terminal.getvalue() and "100%" in terminal.getvalue()
    assert terminal.getvalue().endswith(" \r"), "the bar is gone at the end"
    assert f"{RUN.epoch_checkpoint(2)}: ok\n" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--validate_checkpoints", "--inspect_checkpoint"])
def test_looking_at_a_file_imports_no_torch_and_nothing_else_that_is_slow(flag: str, workplace: Path) -> None:
    path = write_epoch(1)
    slow = {"torch", "numpy", "transformers", "yaml", "matplotlib", "sklearn", "soundfile", "tqdm"}
    code = f"import sys, main; print(main.main({[flag, str(path)]}), sorted({slow} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_name_that_would_act_on_the_terminal_is_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(write_epoch(1), "a\x1b[2Jb.pth")
    assert validated(capsys, "a\x1b[2Jb.pth")[0] == "a?[2Jb.pth: ok"


def test_files_of_every_format_are_good() -> None:
    """Those under tests/fixtures were written by the program of their time."""
    folder = REPOSITORY / "tests" / "fixtures" / "format_1"
    checked = {file.path.name: file.verdict for file in check_files(sorted(folder.iterdir()))}
    assert checked == {
        "best_model_eer.pth": Verdict.WEIGHTS_ONLY,
        "checkpoint_epoch_2.pth": Verdict.OK,
        "checkpoint_step_24.pth": Verdict.OK,
    }
