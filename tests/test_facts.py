"""What the plan is told about the disk: what --model_path names, what the run folder holds, which runs are near."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.asking import asked_training
from tests.records import cut, flip_a_bit, record, write_checkpoint, write_foreign_weights
from training.checkpoints.examined import WeightsFile
from training.checkpoints.record import CheckpointRecord
from training.planning.decide import decide
from training.planning.facts import Facts, collect_facts
from training.planning.plan import Start
from training.runs.directory import RunDirectory
from training.runs.finding import find_source
from training.runs.survey import RunFolder
from training.settings.options import Options
from utils.errors import UserError

OPTIONS = Options()
RUN = RunDirectory.of(OPTIONS).folder
pytestmark = pytest.mark.usefixtures("workplace")


def write_epoch(number: int, options: Options = OPTIONS, name: str = "") -> CheckpointRecord:
    run = RunDirectory.of(options)
    path = run.folder / name if name else run.epoch_checkpoint(number)
    return write_checkpoint(path, record(path, number, options=options))


def facts(*arguments: str | Path) -> Facts:
    return collect_facts(asked_training(*arguments))


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(UserError) as refused:
        facts(*arguments)
    return str(refused.value)


def test_without_a_model_path_only_the_run_folder_is_looked_at() -> None:
    written = write_epoch(3)
    found = facts()
    assert (found.run.checkpoints, found.source, found.candidates.usable) == ((written,), None, None)


def test_looking_creates_nothing() -> None:
    facts("--auto_resume")
    assert list(Path().iterdir()) == []


# --model_path FILE and FOLDER


def test_a_file_is_what_it_names() -> None:
    written = write_epoch(3)
    found = facts("--resume", "--model_path", written.path)
    assert found.source == written


def test_a_folder_means_its_last_checkpoint() -> None:
    write_epoch(2, name="best_checkpoint_eer.pth")
    write_epoch(2)
    last = write_epoch(3)
    assert facts("--resume", "--model_path", RUN).source == last


def test_a_folder_means_its_best_checkpoint_if_that_is_asked_for() -> None:
    best = write_epoch(2, name="best_checkpoint_eer.pth")
    write_epoch(3)
    assert facts("--resume", "--model_path", RUN, "--load_checkpoint_type", "best").source == best


@pytest.mark.parametrize("typed", ["{absolute}", "./{plain}", "models/../{plain}", "link/{name}"])
def test_a_checkpoint_of_the_run_folder_is_known_however_its_path_is_typed(typed: str) -> None:
    """An absolute --model_path was once taken for another folder, and the checkpoint brought along into its own."""
    written = write_epoch(3)
    Path("link").symlink_to(RUN)
    path = typed.format(absolute=written.path.absolute(), plain=written.path, name=written.path.name)
    command = asked_training("--resume", "--model_path", path)
    plan = decide(command, collect_facts(command))
    assert (plan.source, plan.bring_along, plan.start) == (written, False, Start.RESUME)
    assert plan.reason == f"--resume --model_path {command.model_path}"


def test_a_file_that_does_not_exist_is_refused_with_what_is_there() -> None:
    write_epoch(4)
    write_epoch(5)
    message = refusal("--resume", "--model_path", RUN / "checkpoint_epoch_6.pth")
    assert f"--model_path {RUN}/checkpoint_epoch_6.pth does not exist" in message
    assert f"{RUN} holds checkpoint_epoch_4.pth, checkpoint_epoch_5.pth" in message


def test_a_file_in_a_folder_that_does_not_exist_is_refused_with_what_to_do() -> None:
    message = refusal("--model_path", "models/.../checkpoint_epoch_75_exp1.pth")
    assert "there is no folder models/..." in message
    assert "--list_checkpoints" in message


def test_a_folder_without_the_wanted_checkpoint_is_refused_with_what_is_there() -> None:
    write_epoch(4)
    message = refusal("--resume", "--model_path", RUN, "--load_checkpoint_type", "best")
    assert f"--model_path {RUN} holds no best checkpoint: {RUN} holds checkpoint_epoch_4.pth" in message


def test_an_empty_folder_is_refused() -> None:
    Path("empty").mkdir()
    assert "empty holds no checkpoint" in refusal("--resume", "--model_path", "empty")


def test_a_flipped_bit_in_the_named_file_is_refused() -> None:
    path = write_epoch(4).path
    flip_a_bit(path)
    assert f"--model_path {path} is damaged: its checksum does not match" in refusal("--model_path", path)


def test_a_cut_file_is_refused_with_what_is_there() -> None:
    path = write_epoch(4).path
    cut(path)
    message = refusal("--resume", "--model_path", path)
    assert f"--model_path {path} cannot be used: it" in message
    assert "cut short" in message
    assert message.endswith(f"{RUN} holds checkpoint_epoch_4.pth")


def test_a_damaged_last_checkpoint_of_a_named_folder_is_refused_and_not_stepped_over() -> None:
    write_epoch(3)
    flip_a_bit(write_epoch(4).path)
    assert "checkpoint_epoch_4.pth is damaged" in refusal("--resume", "--model_path", RUN)


def test_weights_of_another_program_are_found_as_weights() -> None:
    write_foreign_weights(Path("pretrained.pth"))
    assert isinstance(find_source(Path("pretrained.pth"), "last").facts, WeightsFile)


def test_damaged_weights_of_another_program_are_refused() -> None:
    write_foreign_weights(Path("pretrained.pth"))
    flip_a_bit(Path("pretrained.pth"))
    assert "--model_path pretrained.pth is damaged" in refusal("--model_path", "pretrained.pth")


# Whose settings count


def test_on_resume_what_was_typed_wins_and_the_rest_comes_from_the_checkpoint() -> None:
    written = write_epoch(3, Options(lr=3e-5, batch_size=8, comment="exp1"))
    found = facts("--resume", "--model_path", written.path, "--num_epochs", "150")
    assert found.options == Options(lr=3e-5, batch_size=8, comment="exp1", num_epochs=150)
    assert found.run.folder == RunDirectory.of(found.options).folder


def test_a_default_that_was_typed_wins_too() -> None:
    written = write_epoch(3, Options(lr=3e-5))
    assert facts("--resume", "--model_path", written.path, "--lr", "1e-6").options == Options()


def test_starting_from_weights_takes_no_setting_from_the_file() -> None:
    written = write_epoch(3, Options(lr=3e-5, comment="exp1"))
    assert facts("--model_path", written.path).options == Options()


def test_auto_resume_takes_what_makes_no_other_run_from_the_checkpoint() -> None:
    write_epoch(3, Options(patience=7, num_workers=1, milestones=(2,)))
    found = facts("--auto_resume", "--milestones", "3").options
    assert found == Options(patience=7, num_workers=1, milestones=(3,))


# --auto_resume


def test_auto_resume_finds_the_latest_of_its_own_folder() -> None:
    write_epoch(3)
    last = write_epoch(4)
    assert facts("--auto_resume").candidates.usable == last


def test_auto_resume_steps_over_a_damaged_one() -> None:
    good = write_epoch(3)
    flip_a_bit(write_epoch(4).path)
    candidates = facts("--auto_resume").candidates
    assert candidates.usable == good
    assert [file.path.name for file in candidates.passed_over] == ["checkpoint_epoch_4.pth"]


def test_auto_resume_finds_a_run_that_differs_in_nothing_but_its_length() -> None:
    done = write_epoch(100, Options(comment="exp1"))
    found = facts("--auto_resume", "--num_epochs", "150", "--comment", "exp1")
    assert found.other_length.usable == done
    assert found.other_length_folder and found.other_length_folder.folder == done.path.parent
    assert found.options == Options(comment="exp1", num_epochs=150)


def test_auto_resume_takes_the_furthest_of_several_lengths() -> None:
    write_epoch(30, Options(num_epochs=30))
    furthest = write_epoch(90, Options(num_epochs=90))
    write_epoch(60, Options(num_epochs=60))
    assert facts("--auto_resume").other_length.usable == furthest


def test_auto_resume_prefers_its_own_folder_to_a_longer_run() -> None:
    own = write_epoch(3)
    write_epoch(90, Options(num_epochs=90))
    found = facts("--auto_resume")
    assert (found.candidates.usable, found.other_length.usable) == (own, None)


@pytest.mark.parametrize(
    ("near", "names"),
    [
        (Options(lr=1e-4), ["lr"]),
        (Options(batch_size=8), ["batch_size"]),
        (Options(comment="x"), ["comment"]),
        (Options(seed=2), ["seed"]),
        (Options(lr=1e-4, num_epochs=50), ["lr", "num_epochs"]),
        (Options(algo=3, crop="random", comment="x"), ["crop", "algo", "comment"]),
    ],
)
def test_a_run_that_differs_in_little_is_named_with_what_differs_and_not_taken(near: Options, names: list[str]) -> None:
    """After a change of --lr and --num_epochs together nothing was named, and what was said of others was not so."""
    write_epoch(5, near)
    found = facts("--auto_resume")
    assert found.other_length.usable is None
    (run,) = found.similar
    assert run.folder == RunDirectory.of(near).folder
    assert sorted(change.name for change in run.changes) == sorted(names)


@pytest.mark.parametrize(
    "far",
    [
        Options(group_size=4),
        Options(track="LA"),
        Options(use_contrastive=True),
        Options(lr=1e-4, batch_size=8, seed=2, algo=3, crop="random"),
    ],
)
def test_a_run_that_differs_in_more_is_not_named(far: Options) -> None:
    write_epoch(5, far)
    assert facts("--auto_resume").similar == ()


def test_a_run_moved_to_a_folder_of_another_name_is_not_taken() -> None:
    write_checkpoint(Path("models/backup/checkpoint_epoch_5.pth"), record("", 5, options=Options(num_epochs=50)))
    assert facts("--auto_resume").other_length.usable is None


def test_a_broken_link_in_another_run_stops_nobody() -> None:
    write_epoch(5, Options(lr=1e-4))
    (RunDirectory.of(Options(lr=1e-4)).folder / "checkpoint_epoch_9.pth").symlink_to("deleted.pth")
    assert len(facts("--auto_resume").similar) == 1


def test_auto_resume_with_a_model_path_starts_from_it_where_there_is_no_run() -> None:
    write_foreign_weights(Path("pretrained.pth"))
    found = facts("--auto_resume", "--model_path", "pretrained.pth")
    assert isinstance(found.source, WeightsFile)


@pytest.mark.parametrize("options", [OPTIONS, Options(num_epochs=50)], ids=["own folder", "other length"])
def test_auto_resume_does_not_look_at_a_model_path_that_it_does_not_use(options: Options) -> None:
    """The scheduler repeats one command; the pretrained file may be gone by then."""
    written = write_epoch(5, options)
    command = asked_training("--auto_resume", "--model_path", "deleted.pth")
    plan = decide(command, collect_facts(command))
    assert plan.source == written
    assert "--model_path deleted.pth is not used" in plan.notes[0]


def test_a_file_elsewhere_goes_on_in_the_folder_that_the_given_flags_name() -> None:
    last = write_epoch(3, Options(comment="a"))
    found = facts("--resume", "--model_path", last.path, "--comment", "b")
    assert found.run == RunFolder(RunDirectory.of(Options(comment="b")).folder)


# Experiments; see tests/test_experiments.py for which version a command is about


@pytest.mark.parametrize("typed", [[], ["--fresh_start"], ["--auto_resume"], ["--model_path", "pretrained.pth"]])
def test_a_run_of_an_experiment_that_is_not_there_is_its_version_0(typed: list[str]) -> None:
    write_foreign_weights(Path("pretrained.pth"))
    found = facts(*typed, "--experiment", "x")
    assert (found.run, found.is_new_version) == (RunFolder(Path("outputs/x/checkpoints/version_0")), True)


def test_a_run_in_models_of_the_same_settings_is_not_the_experiments() -> None:
    write_epoch(3)
    found = facts("--auto_resume", "--experiment", "x")
    assert (found.candidates.usable, found.other_length.usable, found.similar) == (None, None, ())


# (the settings of the checkpoint, the flags beside --model_type, why another setting could be blamed)
OTHER_DETECTORS: list[tuple[Options, list[str], str]] = [
    (OPTIONS, ["aasist"], "it has a front-end, and aasist none"),
    (Options(group_size=2, temporal_bias="none"), ["sls"], "it has groups of layers, and sls none"),
    (Options(use_contrastive=True), ["ssl_mean"], "it has a projection, and ssl_mean none"),
    (Options(model_type="lcnn"), ["g3_heatmap"], "it has no front-end"),
    (Options(model_type="sls", freeze_ssl=True), ["lcnn", "--num_epochs", "7"], "its front-end is frozen"),
]


@pytest.mark.parametrize(("stored", "flags", "why"), OTHER_DETECTORS, ids=[row[2] for row in OTHER_DETECTORS])
def test_resuming_with_another_detector_is_refused_by_the_name_of_model_type(
    stored: Options, flags: list[str], why: str
) -> None:
    options = stored.replaced(experiment="x")
    path = Path("outputs/x/checkpoints/version_0/checkpoint_epoch_3.pth")
    write_checkpoint(path, record(path, 3, options=options))
    command = asked_training("--resume", "--model_path", path, "--experiment", "x", "--model_type", *flags)
    with pytest.raises(UserError) as refused:
        decide(command, collect_facts(command))
    told = f"--model_type is {stored.model_type} in {path} and {flags[0]} now: that is another detector"
    assert str(refused.value).startswith(told)
    assert "drop --model_type" in str(refused.value)
