"""The plan is a pure function of the command and of what is on disk: the table "Starting", row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.records import record
from training.checkpoints.examined import UnusableFile, WeightsFile
from training.checkpoints.record import CheckpointRecord
from training.planning.decide import decide, entries_past
from training.planning.facts import Facts
from training.planning.plan import Start
from training.planning.refusals import refuse_changed_data
from training.runs.directory import RunDirectory
from training.runs.own_folder import NearRun
from training.runs.survey import Candidates, RunFolder
from training.settings.changes import Change
from training.settings.options import Options
from training.settings.requests import AutoResume, NewRun, Resume, Train
from utils.errors import UserError

RUN = RunDirectory.of(Options()).folder
NOTHING = RunFolder(RUN)
EPOCH_4 = record(RUN / "checkpoint_epoch_4.pth", 4)
EPOCH_5 = record(RUN / "checkpoint_epoch_5.pth", 5)
TRAINED = RunFolder(
    RUN, (EPOCH_4, EPOCH_5), entries=("checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth", "training_log.csv")
)
ELSEWHERE = record("models/other/checkpoint_epoch_7.pth", 7, run="run-b")
SHORTER = record("models/other/checkpoint_epoch_7.pth", 7, run="run-b", options=Options(num_epochs=7))
OTHER_FOLDER = RunFolder(Path("models/other"), (ELSEWHERE,), entries=("checkpoint_epoch_7.pth",))
VERSION_2 = Path("outputs/x/checkpoints/version_2")
IN_VERSION_2 = record(VERSION_2 / "checkpoint_epoch_5.pth", 5, options=Options(experiment="x"))
WEIGHTS = WeightsFile(Path("models/pretrained/best_model_eer.pth"), 1)


@dataclass(frozen=True)
class Row:
    why: str
    flag: str
    facts: Facts
    start: Start
    source: CheckpointRecord | WeightsFile | None = None
    model_path: Path | None = None
    moved: tuple[str, ...] = ()
    bring_along: bool = False
    says: tuple[str, ...] = field(default=())
    is_new_version: bool = False


def facts(run: RunFolder = NOTHING, **found: object) -> Facts:
    return Facts(Options(), run, **found)  # type: ignore[arg-type]


def request(flag: str, model_path: Path | None) -> Train:
    if flag == "--resume":
        assert model_path
        return Resume(options=Options(), model_path=model_path)
    if flag == "--auto_resume":
        return AutoResume(options=Options(), model_path=model_path)
    return NewRun(options=Options(), model_path=model_path, fresh_start=flag == "--fresh_start")


def of_experiment(run: RunFolder, **found: object) -> Facts:
    return Facts(Options(experiment="x"), run, **found)  # type: ignore[arg-type]


def from_file(source: CheckpointRecord | WeightsFile, run: RunFolder) -> Facts:
    return facts(run, source=source)


TABLE = [
    Row("no flag, nothing there: epoch 1", "", facts(), Start.FRESH),
    Row(
        "no flag, a run is there: it is moved aside, and how to resume it is told",
        "",
        facts(TRAINED),
        Start.FRESH,
        moved=TRAINED.entries,
        says=(f"--resume --model_path {RUN}/version_1/checkpoint_epoch_5.pth",),
    ),
    Row("--fresh_start, nothing there: epoch 1", "--fresh_start", facts(), Start.FRESH),
    Row(
        "--fresh_start, a run is there: as without a flag",
        "--fresh_start",
        facts(TRAINED),
        Start.FRESH,
        moved=TRAINED.entries,
    ),
    Row("--auto_resume, nothing there: epoch 1", "--auto_resume", facts(), Start.FRESH, says=("found no checkpoint",)),
    Row(
        "--auto_resume, nothing there: runs that differ in little are named",
        "--auto_resume",
        facts(similar=(NearRun(Path("models/near"), (Change("lr", 0.5, 1e-6), Change("comment", None, "x"))),)),
        Start.FRESH,
        says=("models/near differs in --lr (0.5 there), --comment (none there)",),
    ),
    Row(
        "--auto_resume, nothing there, a run differs in nothing but --num_epochs: continue from it, into this folder",
        "--auto_resume",
        facts(other_length=Candidates(SHORTER, ()), other_length_folder=OTHER_FOLDER),
        Start.RESUME,
        SHORTER,
        bring_along=True,
        says=("models/other has the same settings but for --num_epochs, so",),
    ),
    Row(
        "--auto_resume: the latest usable one",
        "--auto_resume",
        facts(TRAINED, candidates=Candidates(EPOCH_5, ())),
        Start.RESUME,
        EPOCH_5,
    ),
    Row(
        "--auto_resume past a damaged file: it is named, with the reason",
        "--auto_resume",
        facts(TRAINED, candidates=Candidates(EPOCH_4, (UnusableFile(EPOCH_5.path, "its checksum does not match"),))),
        Start.RESUME,
        EPOCH_4,
        moved=("checkpoint_epoch_5.pth", "training_log.csv"),
        says=("checkpoint_epoch_5.pth: its checksum does not match",),
    ),
    Row(
        "--auto_resume --model_path P, a run is there: P is not used, and that is said",
        "--auto_resume",
        facts(TRAINED, candidates=Candidates(EPOCH_5, ())),
        Start.RESUME,
        EPOCH_5,
        model_path=WEIGHTS.path,
        says=(f"--model_path {WEIGHTS.path} is not used",),
    ),
    Row(
        "--auto_resume --model_path P, nothing there: weights of P",
        "--auto_resume",
        facts(source=WEIGHTS),
        Start.FROM_WEIGHTS,
        WEIGHTS,
        model_path=WEIGHTS.path,
    ),
    Row(
        "--resume FILE, the latest of its folder: nothing moves",
        "--resume",
        from_file(EPOCH_5, TRAINED),
        Start.RESUME,
        EPOCH_5,
        EPOCH_5.path,
    ),
    Row(
        "--resume FILE, an older one: what lies past it is moved aside with the log",
        "--resume",
        from_file(EPOCH_4, TRAINED),
        Start.RESUME,
        EPOCH_4,
        EPOCH_4.path,
        moved=("checkpoint_epoch_5.pth", "training_log.csv"),
        says=("version_1/checkpoint_epoch_5.pth",),
    ),
    Row(
        "--resume FILE into another folder: FILE comes along",
        "--resume",
        from_file(ELSEWHERE, NOTHING),
        Start.RESUME,
        ELSEWHERE,
        ELSEWHERE.path,
        bring_along=True,
    ),
    Row(
        "--resume FILE into the folder of another run: that run is moved aside whole",
        "--resume",
        from_file(ELSEWHERE, TRAINED),
        Start.RESUME,
        ELSEWHERE,
        ELSEWHERE.path,
        moved=TRAINED.entries,
        bring_along=True,
    ),
    Row(
        "--resume FOLDER: the reason says which checkpoint was taken",
        "--resume",
        from_file(EPOCH_5, TRAINED),
        Start.RESUME,
        EPOCH_5,
        RUN,
        says=("its last checkpoint",),
    ),
    Row(
        "--model_path P alone: weights",
        "",
        facts(source=WEIGHTS),
        Start.FROM_WEIGHTS,
        WEIGHTS,
        WEIGHTS.path,
    ),
    Row(
        "--fresh_start --model_path P: weights, even of a full checkpoint; the earlier run is moved aside",
        "--fresh_start",
        facts(TRAINED, source=ELSEWHERE),
        Start.FROM_WEIGHTS,
        ELSEWHERE,
        ELSEWHERE.path,
        moved=TRAINED.entries,
    ),
    Row(
        "an experiment's new run: a folder that must not exist yet",
        "",
        of_experiment(RunFolder(VERSION_2), is_new_version=True),
        Start.FRESH,
        is_new_version=True,
    ),
    Row(
        "--auto_resume of an experiment: its newest version with a checkpoint, naming the newer without",
        "--auto_resume",
        of_experiment(
            RunFolder(VERSION_2, (IN_VERSION_2,), entries=("checkpoint_epoch_5.pth",)),
            candidates=Candidates(IN_VERSION_2, ()),
            passed_versions=(VERSION_2.with_name("version_3"),),
        ),
        Start.RESUME,
        IN_VERSION_2,
        says=("passed over outputs/x/checkpoints/version_3: it holds no checkpoint",),
    ),
    Row(
        "--resume FILE from elsewhere into an experiment: FILE comes along into a new version",
        "--resume",
        of_experiment(RunFolder(VERSION_2), source=ELSEWHERE, is_new_version=True),
        Start.RESUME,
        ELSEWHERE,
        ELSEWHERE.path,
        bring_along=True,
        is_new_version=True,
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_a_run_starts_as_the_table_says(row: Row) -> None:
    plan = decide(request(row.flag, row.model_path), row.facts)
    assert (plan.start, plan.source, plan.move_aside, plan.bring_along) == (
        row.start,
        row.source,
        row.moved,
        row.bring_along,
    )
    assert (plan.run.folder, plan.is_new_version) == (row.facts.run.folder, row.is_new_version)
    told = "\n".join([plan.reason, *plan.notes])
    for words in row.says:
        assert words in told


def test_resuming_weights_alone_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"weights only.*no optimizer.*drop --resume"):
        decide(Resume(options=Options(), model_path=WEIGHTS.path), from_file(WEIGHTS, NOTHING))


def test_auto_resume_with_nothing_but_damaged_files_names_each_and_offers_a_fresh_start() -> None:
    damaged = tuple(UnusableFile(r.path, "cut short") for r in (EPOCH_5, EPOCH_4))
    with pytest.raises(UserError, match=r"checkpoint_epoch_5.*checkpoint_epoch_4.*--fresh_start"):
        decide(AutoResume(options=Options()), facts(TRAINED, candidates=Candidates(None, damaged)))


def test_a_finished_run_has_nothing_to_train_and_moves_nothing() -> None:
    done = record(RUN / "checkpoint_epoch_100.pth", 100)
    run = RunFolder(RUN, (done,), entries=("checkpoint_epoch_100.pth",))
    plan = decide(AutoResume(options=Options()), facts(run, candidates=Candidates(done, ())))
    assert (plan.start, plan.move_aside) == (Start.REACHED, ())


@pytest.mark.parametrize(
    ("patience", "batches_done", "start", "why"),
    [
        (3, 0, Start.REACHED, "epochs 3, 4 and 5 were no better than the second"),
        (2, 0, Start.REACHED, "so were two of them"),
        (4, 0, Start.RESUME, "one more epoch may be"),
        (0, 0, Start.RESUME, "no patience was asked for"),
        (3, 4, Start.RESUME, "an epoch that was begun is completed"),
    ],
)
def test_a_run_at_the_end_of_its_patience_is_finished(patience: int, batches_done: int, start: Start, why: str) -> None:
    newest = record(RUN / "checkpoint_epoch_5.pth", 5, best_epoch=2, batches_done=batches_done)
    run = RunFolder(RUN, (newest,), entries=(newest.path.name,))
    found = Facts(Options(patience=patience), run, candidates=Candidates(newest, ()))
    assert decide(AutoResume(options=Options()), found).start is start, why


def test_a_finished_run_goes_on_with_more_epochs_in_the_folder_that_names_them() -> None:
    done = record(RUN / "checkpoint_epoch_100.pth", 100)
    longer = Options(num_epochs=150)
    run = RunFolder(RunDirectory.of(longer).folder)
    found = Facts(longer, run, done)
    plan = decide(Resume(options=longer, given=frozenset({"num_epochs"}), model_path=done.path), found)
    assert (plan.start, plan.bring_along) == (Start.RESUME, True)
    assert plan.changes == (Change("num_epochs", 100, 150),)
    assert "_150_" in plan.run.folder.name


# (setting, its new value, checkpoint in mid-epoch?, the words of the refusal or None where it is only reported)
CHANGES = [
    ("lr", 1e-4, False, None),
    ("lr", 1e-4, True, None),
    ("weight_decay", 0.0, True, None),
    ("seed", 1, False, None),
    ("seed", 1, True, "--seed is 1234"),
    ("batch_size", 8, False, None),
    ("batch_size", 8, True, "in the middle of epoch 6"),
    ("num_examples", 40, True, "--num_examples is None"),
    ("group_size", 4, False, "another detector"),
    ("loss", "oc_softmax", False, "another detector"),
    ("loss", "focal", False, "the epochs so far were validated by another measure"),
    ("class_weights", (1.0, 1.0), True, None),
    ("accumulate_steps", 4, True, "in the middle of epoch"),
    ("accumulate_steps", 4, False, None),
    ("clip_grad_norm", 1.0, True, None),
    ("patience", 7, True, None),
    ("scheduler", "plateau", True, None),
    ("balanced_batches", True, True, "in the middle of epoch"),
    ("pair_batches", True, True, "in the middle of epoch"),
    ("pair_batches", True, False, None),
    ("ssl_model", "facebook/hubert-base", False, "drop --ssl_model"),
    ("use_contrastive", True, False, "--use_contrastive is False"),
    ("contrastive", "infonce", True, None),
    ("swa", True, False, "the mean would lack the epochs so far"),
    ("adam", "plain", False, "a run keeps the arithmetic that it began with"),
    ("swa_below", 1.0, True, None),
    ("lr_min", 5e-7, True, None),
]


@pytest.mark.parametrize(("name", "new", "mid_epoch", "refusal"), CHANGES)
def test_a_changed_setting_is_refused_or_reported_by_what_it_does(
    name: str, new: object, mid_epoch: bool, refusal: str | None
) -> None:
    source = record(RUN / "c.pth", 5, batches_done=3 if mid_epoch else 0)
    options = Options(**{name: new})  # type: ignore[arg-type]
    found = Facts(options, RunFolder(RunDirectory.of(options).folder), source)
    command = Resume(options=options, given=frozenset({name}), model_path=source.path)
    if refusal:
        with pytest.raises(UserError, match=refusal):
            decide(command, found)
    else:
        assert [change.name for change in decide(command, found).changes] == [name]


@pytest.mark.parametrize("setting", ["num_workers", "device", "database_path", "comment", "viz_samples"])
def test_a_setting_without_effect_on_the_results_is_not_reported(setting: str) -> None:
    new = {"num_workers": 0, "device": "cpu", "database_path": "/data/LA", "comment": "x", "viz_samples": 3}[setting]
    options = Options(ssl_model="compact", **{setting: new})  # type: ignore[arg-type]
    found = Facts(options, NOTHING, EPOCH_5)
    assert decide(Resume(options=options, model_path=EPOCH_5.path), found).changes == ()


def test_other_data_is_reported_between_epochs() -> None:
    changes = refuse_changed_data(EPOCH_5, {"train": "c" * 64, "dev": "b" * 64})
    assert [change.name for change in changes] == ["train protocol"]


def test_other_data_is_refused_in_the_middle_of_an_epoch() -> None:
    with pytest.raises(UserError, match=r"middle of epoch 6"):
        refuse_changed_data(record("c.pth", 5, batches_done=3), {"train": "c" * 64, "dev": "b" * 64})


def test_the_same_data_elsewhere_is_the_same_data() -> None:
    assert refuse_changed_data(record("c.pth", 5, batches_done=3), dict(EPOCH_5.data)) == ()


def test_a_best_checkpoint_from_beyond_the_resumed_epoch_moves_with_its_weights() -> None:
    names = ("best_checkpoint_eer.pth", "best_model_eer.pth", "checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth")
    best = record(RUN / names[0], 5)
    weights = WeightsFile(RUN / names[1], 1, record(RUN / names[1], 5))
    run = RunFolder(RUN, (EPOCH_4, EPOCH_5), best, (weights,), entries=names)
    assert entries_past(EPOCH_4, run) == ("best_checkpoint_eer.pth", "best_model_eer.pth", "checkpoint_epoch_5.pth")


def test_a_best_checkpoint_from_before_the_resumed_epoch_stays() -> None:
    names = ("best_checkpoint_eer.pth", "best_model_eer.pth", "checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth")
    source = record(RUN / names[2], 4, best_epoch=2)
    best = record(RUN / names[0], 2)
    run = RunFolder(
        RUN, (source, EPOCH_5), best, (WeightsFile(RUN / names[1], 1, record(RUN / names[1], 2)),), entries=names
    )
    assert entries_past(source, run) == ("checkpoint_epoch_5.pth",)


def test_best_weights_that_a_kill_left_an_epoch_behind_the_best_checkpoint_stay_and_nothing_moves() -> None:
    """They are written after the best checkpoint has its name, and the next start writes them."""
    names = ("best_checkpoint_eer.pth", "best_model_eer.pth", "checkpoint_epoch_4.pth", "training_log.csv")
    weights = WeightsFile(RUN / names[1], 1, record(RUN / names[1], 2))
    run = RunFolder(RUN, (EPOCH_4,), record(RUN / names[0], 4), (weights,), entries=names)
    assert entries_past(EPOCH_4, run) == ()


def test_the_last_name_moves_with_the_checkpoint_that_it_names() -> None:
    names = ("checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth", "last_checkpoint.pth")
    run = RunFolder(RUN, (EPOCH_4, EPOCH_5), entries=names, last=record(RUN / names[2], 5))
    assert entries_past(EPOCH_4, run) == ("checkpoint_epoch_5.pth", "last_checkpoint.pth")


def test_heatmaps_of_epochs_past_the_resumed_one_move_and_earlier_ones_stay() -> None:
    names = ("attention_epoch_4", "attention_epoch_5", "checkpoint_epoch_4.pth", "checkpoint_epoch_5.pth")
    run = RunFolder(RUN, (EPOCH_4, EPOCH_5), entries=names)
    assert entries_past(EPOCH_4, run) == ("attention_epoch_5", "checkpoint_epoch_5.pth")


def test_two_futures_of_one_past_are_told_apart() -> None:
    """A run resumed from epoch 4 has epoch 4 in common with the one that went on to epoch 5, and not epoch 5."""
    branched = (("run-a", 0), ("run-b", 40))
    source = record(RUN / "checkpoint_epoch_6.pth", 6, lineage=branched)
    other_5 = EPOCH_5
    own_5 = record(RUN / "checkpoint_epoch_5_mine.pth", 5, lineage=branched)
    names = (
        "checkpoint_epoch_4.pth",
        "checkpoint_epoch_5.pth",
        "checkpoint_epoch_5_mine.pth",
        "checkpoint_epoch_6.pth",
    )
    run = RunFolder(RUN, (EPOCH_4, other_5, own_5, source), entries=names)
    assert entries_past(source, run) == ("checkpoint_epoch_5.pth",)
