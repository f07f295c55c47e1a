"""--list_checkpoints prints the documented block to the letter, exits 0, and needs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from main import main
from tests.conftest import REPOSITORY
from tests.records import cut, metrics, record, validated, write_checkpoint, write_foreign_weights
from tests.small_state import small_state
from training.checkpoints.record import Kind
from training.checkpoints.rows import EpochMetrics
from training.commands.list_checkpoints import list_text
from training.reports.page.tables import checkpoint_rows
from training.reports.story import Story
from training.runs.directory import RunDirectory
from training.runs.survey import survey_folder
from training.settings.options import Options

OPTIONS = Options(comment="my_experiment")
RUN = RunDirectory.of(OPTIONS)
pytestmark = pytest.mark.usefixtures("workplace")

# The documentation's example, its two garbled signs read as 📋 and 📦.
DOCUMENTED = """\
======================================================================
📋 Available Checkpoints in models/g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse_my_experiment
======================================================================

📦 checkpoint_epoch_10_my_experiment.pth
   Epoch: 10
   Val EER: 0.16%
   Val Acc: 99.84%
   Best EER: 0.16%

📦 checkpoint_epoch_20_my_experiment.pth
   Epoch: 20
   Val EER: 0.12%
   Val Acc: 99.88%
   Best EER: 0.12%

📦 best_checkpoint_eer_my_experiment.pth
   Epoch: 20
   Val EER: 0.12%
   Val Acc: 99.88%
   Best EER: 0.12%
======================================================================
"""


def figures(epoch: int, val_eer: float, val_acc: float) -> EpochMetrics:
    base = metrics(epoch, val_eer)
    return replace(base, figures={**base.figures, "val_acc": val_acc})


EPOCH_10 = figures(10, 0.16, 99.84)
EPOCH_20 = figures(20, 0.12, 99.88)


def write(path: Path, last: EpochMetrics, best: EpochMetrics, kind: Kind = Kind.EPOCH) -> None:
    write_checkpoint(path, record(path, last.epoch, options=OPTIONS, last=last, best=best, kind=kind))


def write_documented_run() -> None:
    write(RUN.epoch_checkpoint(20), EPOCH_20, EPOCH_20)
    write(RUN.epoch_checkpoint(10), EPOCH_10, EPOCH_10)
    write(RUN.best_checkpoint, EPOCH_20, EPOCH_20)


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["--list_checkpoints", *arguments]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def without_ages(text: str) -> str:
    return text.partition("Sizes and ages:\n")[0]


def test_the_block_is_the_documented_one_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    assert without_ages(listed(capsys, "--comment", "my_experiment")) == DOCUMENTED


def test_the_best_eer_is_the_best_so_far_and_not_the_epochs_own(capsys: pytest.CaptureFixture[str]) -> None:
    write(RUN.epoch_checkpoint(20), EPOCH_20, EPOCH_20)
    write(RUN.epoch_checkpoint(21), figures(21, 0.5, 99.5), EPOCH_20)
    assert "   Epoch: 21\n   Val EER: 0.50%\n   Val Acc: 99.50%\n   Best EER: 0.12%\n" in listed(
        capsys, "--comment", "my_experiment"
    )


@pytest.mark.parametrize(
    ("epoch", "batches_done", "lines"),
    [
        (
            10,
            3,
            "   Epoch: 10\n   Val EER: 5.00%\n   Val Acc: 90.00%\n   Best EER: 5.00%\n"
            "   Step: 103 (3 of 10 batches of epoch 11)\n",
        ),
        (
            10,
            10,
            "   Epoch: 10\n   Val EER: 5.00%\n   Val Acc: 90.00%\n   Best EER: 5.00%\n"
            "   Step: 110 (epoch 11 trained, not validated)\n",
        ),
        (0, 3, "   Epoch: 0\n   Val EER: no epoch is complete yet\n   Step: 3 (3 of 10 batches of epoch 1)\n"),
    ],
)
def test_a_step_checkpoint_tells_where_in_its_epoch_it_is(
    epoch: int, batches_done: int, lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = record("", epoch, batches_done=batches_done)
    path = RUN.folder / f"checkpoint_step_{made.step}.pth"
    write_checkpoint(path, made)
    assert f"📦 {path.name}\n{lines}" in listed(capsys, "--comment", "my_experiment")


def test_a_step_checkpoint_that_was_validated_tells_its_own_figure_too(capsys: pytest.CaptureFixture[str]) -> None:
    figures = validated(step=3, epoch=0, val_eer=7.5)
    write_checkpoint(RUN.folder / "checkpoint_step_3.pth", record("", 0, batches_done=3, validated=figures))
    assert "(3 of 10 batches of epoch 1)\n   Val EER at this step: 7.50%\n" in listed(
        capsys, "--comment", "my_experiment"
    )


def test_everything_else_in_the_folder_has_a_line_after_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    write(RUN.best_weights, EPOCH_20, EPOCH_20, Kind.WEIGHTS)
    write_foreign_weights(RUN.folder / "pretrained.pth")
    write(RUN.epoch_checkpoint(30), EPOCH_20, EPOCH_20)
    cut(RUN.epoch_checkpoint(30))
    RUN.version_folder(1).mkdir()
    damage = survey_folder(RUN.folder).unusable[0].reason
    assert without_ages(listed(capsys, "--comment", "my_experiment")) == DOCUMENTED + (
        f"Cannot be used: {RUN.folder}/checkpoint_epoch_30_my_experiment.pth: {damage}\n"
        f"Weights only: {RUN.folder}/best_model_eer_my_experiment.pth (epoch 20, val EER 0.12%)\n"
        f"Weights only: {RUN.folder}/pretrained.pth\n"
        f"Earlier run, moved aside: {RUN.folder}/version_1\n"
    )


def test_below_the_block_each_checkpoint_has_its_size_its_age_and_what_it_is() -> None:
    now_s = 1_800_000_000.0
    saved = {RUN.epoch_checkpoint(9): 86_400 * 3, RUN.epoch_checkpoint(10): 7200, RUN.best_checkpoint: 86_400 * 3}
    for path, age_s in saved.items():
        epoch = 10 if path == RUN.epoch_checkpoint(10) else 9
        made = record(path, epoch, options=OPTIONS, metadata={"saved_at": now_s - age_s})
        write_checkpoint(path, made)
    RUN.epoch_checkpoint(30).write_bytes(b"cut short")
    os.utime(RUN.epoch_checkpoint(30), (now_s, now_s - 60))
    size = f"{RUN.best_checkpoint.stat().st_size / 1000:.1f} kB"
    assert list_text(survey_folder(RUN.folder), [], now_s=now_s).partition("Sizes and ages:\n")[2].splitlines() == [
        f"   checkpoint_epoch_9_my_experiment.pth      {size}  3 days ago      best",
        f"   checkpoint_epoch_10_my_experiment.pth     {size}  2 hours ago     last",
        f"   best_checkpoint_eer_my_experiment.pth     {size}  3 days ago      best",
        "   checkpoint_epoch_30_my_experiment.pth    9 bytes  1 minute ago    cannot be used",
    ]


@pytest.mark.parametrize("saved_at", [1e300, -5, "yesterday", None], ids=repr)
def test_a_time_that_no_clock_shows_is_not_believed(saved_at: object, capsys: pytest.CaptureFixture[str]) -> None:
    made = record(RUN.epoch_checkpoint(1), 1, options=OPTIONS, metadata={"saved_at": saved_at})
    write_checkpoint(RUN.epoch_checkpoint(1), made)
    assert "   checkpoint_epoch_1_my_experiment.pth" in listed(capsys, "--comment", "my_experiment")
    (row,) = checkpoint_rows(survey_folder(RUN.folder), Story(OPTIONS, small_state().history))
    assert row.saved == "-"


def test_a_version_folder_that_only_the_logs_have_is_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    RUN.logs_version_folder(1).mkdir(parents=True)
    assert without_ages(listed(capsys, "--comment", "my_experiment")) == DOCUMENTED


def test_nothing_to_list_is_said_and_creates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == f"No checkpoints in {RunDirectory.of(Options()).folder}.\n"
    assert list(Path().iterdir()) == []


def test_where_there_is_nothing_to_list_the_runs_that_have_some_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    assert f"Runs that have checkpoints:\n  {RUN.folder}\n" in listed(capsys)


def test_a_folder_with_nothing_but_damaged_files_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    RUN.folder.mkdir(parents=True)
    RUN.epoch_checkpoint(1).touch()
    assert without_ages(listed(capsys, "--comment", "my_experiment")) == (
        f"No checkpoints in {RUN.folder}.\nCannot be used: {RUN.epoch_checkpoint(1)}: it is empty\n"
    )


def test_json_holds_everything_that_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    write(RUN.best_weights, EPOCH_20, EPOCH_20, Kind.WEIGHTS)
    RUN.epoch_checkpoint(30).touch()
    RUN.version_folder(1).mkdir()
    Path("models/other").mkdir()
    write(Path("models/other/checkpoint_epoch_1.pth"), EPOCH_10, EPOCH_10)
    document = json.loads(listed(capsys, "--comment", "my_experiment", "--json"))
    assert [(item["path"], item["epoch"]) for item in document.pop("checkpoints")] == [
        (str(RUN.epoch_checkpoint(10)), 10),
        (str(RUN.epoch_checkpoint(20)), 20),
        (str(RUN.best_checkpoint), 20),
    ]
    assert document == {
        "folder": str(RUN.folder),
        "best_checkpoint": str(RUN.best_checkpoint),
        "frozen": [],
        "last_checkpoint": None,
        "weights": [
            {
                "path": str(RUN.best_weights),
                "bytes": RUN.best_weights.stat().st_size,
                "epoch": 20,
                "val_eer": 0.12,
            }
        ],
        "unusable": [{"path": str(RUN.epoch_checkpoint(30)), "reason": "it is empty"}],
        "earlier_runs": [str(RUN.version_folder(1))],
        "other_versions": [],
        "other_runs": ["models/other"],
    }


def test_json_of_a_checkpoint_has_its_metrics_options_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    first = json.loads(listed(capsys, "--comment", "my_experiment", "--json"))["checkpoints"][0]
    assert (first["last"]["val_eer"], first["best"]["val_eer"], first["kind"]) == (0.16, 0.16, "epoch")
    assert first["options"] == OPTIONS.as_dict()
    assert first["bytes"] == RUN.epoch_checkpoint(10).stat().st_size


def test_json_of_nothing_is_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(listed(capsys, "--json"))
    assert (document["checkpoints"], document["best_checkpoint"]) == ([], None)


def test_listing_changes_nothing_on_disk(capsys: pytest.CaptureFixture[str]) -> None:
    write_documented_run()
    before = {path: path.lstat().st_mtime_ns for path in Path().rglob("*")}
    listed(capsys, "--comment", "my_experiment")
    assert {path: path.lstat().st_mtime_ns for path in Path().rglob("*")} == before


# What makes a start slow: torch 1.5 s, transformers 4 s, the others some tenths each.
HEAVY = ["torch", "numpy", "transformers", "yaml", "matplotlib", "sklearn", "soundfile", "tqdm"]
_IMPORTED = f"""
import sys
sys.argv[0] = "main.py"
import main
try:
    code = main.main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("exit", code, "heavy:", *sorted(set(sys.modules) & set({HEAVY})))
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--list_checkpoints", "--comment", "my_experiment"], 0),
        (["--list_checkpoints", "--json"], 0),
        (["--validate_checkpoints", "--comment", "my_experiment"], 1),  # its files lack most keys
        (["--help"], 0),
        (["--resume"], 2),
        (["--resume", "--fresh_start"], 2),
        (["--lr", "-1"], 2),
        (["--resume", "--model_path", "nowhere.pth"], 1),
    ],
)
def test_what_trains_nothing_imports_nothing_heavy(arguments: list[str], code: int) -> None:
    write_documented_run()
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTED, *arguments],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"exit {code} heavy:"
