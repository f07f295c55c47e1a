"""A record goes into JSON and comes back the same; what this version cannot read is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.records import metrics, record, validated
from training.checkpoints.checking import Verdict, check_file
from training.checkpoints.examined import UnusableFile, WeightsFile, examine
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import FrozenFile
from training.checkpoints.record import FORMAT, CheckpointRecord, Kind, record_from_dict
from training.saving.store import save_checkpoint
from training.settings.options import Options
from training.settings.tasks import DETECTION
from utils.errors import UserError

PATH = Path("models/run/checkpoint_epoch_3.pth")
OF_FORMAT_1 = sorted((REPOSITORY / "tests/fixtures/format_1").glob("*.pth"))
OF_EARLIER_FORMATS = sorted((REPOSITORY / "tests/fixtures").glob("format_*/*.pth"))
AWKWARD = metrics(3, val_eer=0.1 + 0.2, val_loss=1e-323)


def through_json(made: CheckpointRecord) -> CheckpointRecord:
    return record_from_dict(json.loads(json.dumps(made.as_dict())), made.path, made.bytes_on_disk)


def stored(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(record(PATH, 3).as_dict())) | changes  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "made",
    [
        record(PATH, 3),
        record(PATH, 0, batches_done=4),
        record(PATH, 3, batches_done=10, lineage=(("a", 0), ("b", 12))),
        record(PATH, 3, last=AWKWARD, best=AWKWARD, learning_rate=1 / 3),
        record(PATH, 3, name="ep3.pt", validated=validated(30, 3, 1 / 3, 0.1 + 0.2)),
        record(PATH, 3, options=Options(milestones=(10, 25), save_interval=0)),
        record(PATH, 3, options=Options(lr=3e-7, comment="été 📦", use_contrastive=True, num_examples=50)),
        record(PATH, 3, kind=Kind.WEIGHTS, metadata={"git_commit": None, "saved_at": 1790000000.123456}),
    ],
    ids=[
        "epoch",
        "first epoch",
        "trained, not validated",
        "awkward numbers",
        "validated",
        "milestones",
        "options",
        "weights",
    ],
)
def test_a_record_survives_json_exactly(made: CheckpointRecord) -> None:
    assert through_json(made) == made


def test_the_record_says_nothing_about_where_the_file_lies() -> None:
    """A checkpoint can be moved: path and size come from the file system."""
    assert not {"path", "bytes_on_disk"} & set(record(PATH, 3).as_dict())


@pytest.mark.parametrize("format_number", [4, 99, None, "1", 1.0])
def test_a_format_that_is_newer_or_none_is_refused(format_number: object) -> None:
    with pytest.raises(BadCheckpointFileError, match="this version reads up to 3: update bonafide"):
        record_from_dict(stored(format=format_number), PATH, 1)


@pytest.mark.parametrize("key", sorted(set(record(PATH, 3).as_dict()) - {"format", "decision"}))
def test_a_missing_key_is_named(key: str) -> None:
    made = stored()
    del made[key]
    with pytest.raises(BadCheckpointFileError, match=f"its record lacks {key}"):
        record_from_dict(made, PATH, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "vocoder"),
        ("kind", []),
        ("lineage", []),
        ("lineage", 7),
        ("lineage", [["a"]]),
        ("epoch", "3"),
        ("step", None),
        ("batches_done", 1.5),
        ("learning_rate", "fast"),
        ("last", {"epoch": 3}),
        ("best", "none"),
        ("validated", {"step": 3}),
        ("options", []),
        ("data", "here"),
        ("task", 5),
        ("figures", []),
        ("figures", [5]),
        ("figures", [{"part": "val", "key": "eer", "short": "EER", "rank": 2}]),
        ("parts", "model_state_dict"),
        ("weights", None),
        ("decision", {"threshold": "high"}),
        ("metadata", None),
    ],
)
def test_a_value_of_another_kind_is_damage(key: str, value: object) -> None:
    with pytest.raises(BadCheckpointFileError, match="its record is damaged"):
        record_from_dict(stored(**{key: value}), PATH, 1)


@pytest.mark.parametrize("name", ["device", "comment", "milestones", "checkpoint_name"])
def test_a_setting_of_another_type_makes_a_file_unusable_and_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"--{name} must be .*, found 5"):
        record_from_dict(stored(options={name: 5}), PATH, 1)


@pytest.mark.parametrize("number", range(1, FORMAT))
def test_every_kind_of_file_of_every_earlier_format_is_among_the_fixtures(number: int) -> None:
    found = [examine(path) for path in OF_EARLIER_FORMATS if path.parent.name == f"format_{number}"]
    kinds = [file.kind if isinstance(file, CheckpointRecord) else type(file) for file in found]
    assert kinds == [WeightsFile, Kind.EPOCH, Kind.STEP]


@pytest.mark.parametrize("path", OF_EARLIER_FORMATS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_of_an_earlier_format_is_whole_usable_and_of_a_detector(path: Path) -> None:
    found = examine(path)
    assert not isinstance(found, UnusableFile | FrozenFile)
    record = found if isinstance(found, CheckpointRecord) else found.record
    assert record is not None
    assert (record.task, record.figures) == ("detection", DETECTION.figures)
    assert check_file(path).verdict in (Verdict.OK, Verdict.WEIGHTS_ONLY)


@pytest.mark.parametrize("path", OF_FORMAT_1[1:], ids=lambda path: path.name)
def test_a_record_of_format_1_says_neither_its_name_nor_figures_within_an_epoch(path: Path) -> None:
    """And has the defaults of the settings that did not exist then."""
    found = examine(path)
    assert isinstance(found, CheckpointRecord)
    assert (found.name, found.validated) == ("", None)
    assert (found.options.save_interval, found.options.milestones) == (1000, ())


@pytest.mark.parametrize(
    ("batches_done", "is_mid_epoch", "awaits_validation", "why"),
    [
        (0, False, False, "between two epochs"),
        (1, True, False, "one batch of ten done"),
        (9, True, False, "one batch left"),
        (10, False, True, "trained, not validated"),
    ],
)
def test_where_in_an_epoch_a_checkpoint_lies(
    batches_done: int, is_mid_epoch: bool, awaits_validation: bool, why: str
) -> None:
    made = record(PATH, 3, batches_done=batches_done)
    assert (made.is_mid_epoch, made.awaits_validation) == (is_mid_epoch, awaits_validation), why


def test_later_checkpoints_of_one_run_have_greater_positions() -> None:
    """Validated counts as later than trained, at the same step."""
    in_order = [record(PATH, 2), record(PATH, 2, batches_done=1), record(PATH, 2, batches_done=10), record(PATH, 3)]
    assert sorted(in_order, key=lambda made: made.position) == in_order
    assert len({made.position for made in in_order}) == len(in_order)


LINEAGE = (("a", 0), ("b", 20), ("c", 25))


@pytest.mark.parametrize(
    ("step", "run_id", "why"),
    [
        (0, None, "no step was made yet"),
        (1, "a", "the first step"),
        (20, "a", "the last step before b began"),
        (21, "b", "the first step of b"),
        (25, "b", "the last step before c began"),
        (26, "c", "the first step of c"),
        (900, "c", "c goes on"),
    ],
)
def test_which_run_made_a_step(step: int, run_id: str | None, why: str) -> None:
    assert record(PATH, 3, lineage=LINEAGE).run_id_at(step) == run_id, why


def test_a_run_resumed_twice_from_one_step_belongs_to_the_second() -> None:
    assert record(PATH, 3, lineage=(("a", 0), ("b", 20), ("c", 20))).run_id_at(21) == "c"


@pytest.mark.parametrize(
    ("step", "lineage", "is_its_own", "why"),
    [
        (30, LINEAGE, True, "the run itself"),
        (30, (*LINEAGE, ("d", 40)), True, "the run after it went on under another id, from later on"),
        (30, (*LINEAGE, ("d", 29)), False, "another future, from before"),
        (20, (("a", 0), ("d", 20)), True, "the past that two futures share"),
        (30, (("z", 0),), False, "another run"),
        (0, LINEAGE, True, "before the first step"),
        (0, (("z", 0),), False, "before the first step of another run"),
    ],
)
def test_which_run_a_checkpoint_belongs_to(
    step: int, lineage: tuple[tuple[str, int], ...], is_its_own: bool, why: str
) -> None:
    assert record(PATH, 3, lineage=LINEAGE, step=step).belongs_to(lineage) is is_its_own, why


def test_a_checkpoint_written_before_the_first_new_step_belongs_to_the_run_of_its_last_step() -> None:
    """Symptom: resumed while awaiting validation, epoch 3 was validated and saved, and then moved aside as foreign."""
    resumed_while_awaiting_validation = (("a", 0), ("b", 30))
    epoch_3 = record(PATH, 3, lineage=resumed_while_awaiting_validation)
    epoch_4 = record(PATH, 4, lineage=resumed_while_awaiting_validation)
    assert epoch_3.step == 30
    assert epoch_3.run_id == epoch_4.run_id_at(epoch_3.step) == "a"
    assert epoch_4.run_id == "b"


def test_a_file_is_judged_by_its_record_and_not_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "best_model_eer.pth"
    made = record(path, 3, last=AWKWARD)
    for kind in (Kind.EPOCH, Kind.STEP, Kind.WEIGHTS):
        save_checkpoint(path, {"model_state_dict": {}}, replace(made, kind=kind))
        size = path.stat().st_size
        expected = replace(made, kind=kind, bytes_on_disk=size)
        weights = WeightsFile(path, size, expected)
        assert examine(path) == (weights if kind is Kind.WEIGHTS else expected)


def test_a_file_of_another_program_can_start_a_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_epoch_3.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    assert examine(path) == WeightsFile(path, path.stat().st_size)


def test_settings_that_this_version_does_not_know_make_a_file_unusable_and_are_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_epoch_3.pth"
    newer = _RecordWithNewSetting(**{name: getattr(record(path, 3), name) for name in vars(record(path, 3))})
    save_checkpoint(path, {"model_state_dict": {}}, newer)
    found = examine(path)
    assert isinstance(found, UnusableFile)
    assert "quantum_noise" in found.reason
    assert "newer bonafide" in found.reason


class _RecordWithNewSetting(CheckpointRecord):
    def as_dict(self) -> dict[str, Any]:
        made = super().as_dict()
        return made | {"options": made["options"] | {"quantum_noise": True}}
