"""Experiments: each new run is the next version, goes on in its own folder, and no two get one number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from main import main
from tests.asking import asked_training
from tests.comparing import assert_same_training, bits, differences
from tests.conftest import SMALL_RUN
from tests.records import flip_a_bit, record, write_checkpoint, write_foreign_weights
from training.checkpoints.record import CheckpointRecord
from training.loop.preparation import make_run_folder
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.planning.plan import Plan, Start
from training.runs.directory import RunDirectory
from training.runs.experiments import find_experiment, other_experiments, other_versions
from training.settings.options import Options
from training.settings.yaml_settings import read_settings_file
from utils.errors import UserError

OPTIONS = Options(experiment="x")
VERSIONS = Path("outputs/x/checkpoints")
LOGS = Path("outputs/x/logs")
pytestmark = pytest.mark.usefixtures("workplace")


def write_epoch(version: int, epoch: int, options: Options = OPTIONS, name: str = "") -> CheckpointRecord:
    run = RunDirectory(VERSIONS / f"version_{version}", options.comment)
    path = run.folder / name if name else run.epoch_checkpoint(epoch)
    return write_checkpoint(path, record(path, epoch, options=options, run=f"run-{version}"))


def plan_of(*typed: str | Path) -> Plan:
    command = asked_training(*typed)
    return decide(command, collect_facts(command))


# Numbers


@pytest.mark.parametrize(
    ("there", "logs", "expected"),
    [
        ((), (), 0),
        ((0,), (0,), 1),
        ((0, 1), (), 2),
        ((), (0, 4), 5),
        ((7,), (2,), 8),
        ((9, 10), (), 11),
    ],
    ids=["none yet", "both", "checkpoints only", "logs only", "checkpoints are ahead", "numbers, not names"],
)
def test_a_new_run_gets_one_more_than_the_highest_number_in_either_place(
    there: tuple[int, ...], logs: tuple[int, ...], expected: int
) -> None:
    for number in there:
        (VERSIONS / f"version_{number}").mkdir(parents=True)
    for number in logs:
        (LOGS / f"version_{number}").mkdir(parents=True)
    plan = plan_of("--experiment", "x")
    assert (plan.run.folder, plan.run.logs_folder) == (
        VERSIONS / f"version_{expected}",
        LOGS / f"version_{expected}",
    )
    assert plan.is_new_version


def test_a_file_called_like_a_version_takes_its_number_and_is_no_version() -> None:
    VERSIONS.mkdir(parents=True)
    (VERSIONS / "version_3").touch()
    found = find_experiment("x")
    assert (found.folders, found.next_folder) == ((), VERSIONS / "version_4")


# Which version a command is about


@dataclass(frozen=True)
class Row:
    why: str
    typed: str
    start: Start
    version: int
    is_new: bool = False
    bring_along: bool = False
    moved: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


V0, V2 = VERSIONS / "version_0", VERSIONS / "version_2"
# On disk: version 0 with epochs 1 to 3, version 1 without a checkpoint, version 2 with epochs 1 and 2, and models/run.
TABLE = [
    Row("no flag: the next version, nothing moves", "", Start.FRESH, 3, is_new=True),
    Row("--fresh_start: the same", "--fresh_start", Start.FRESH, 3, is_new=True),
    Row("--model_path: weights into the next", f"--model_path {V0}", Start.FROM_WEIGHTS, 3, is_new=True),
    Row(
        "--auto_resume: the newest version goes on",
        "--auto_resume",
        Start.RESUME,
        2,
        says=("--auto_resume found it as the latest usable checkpoint",),
    ),
    Row(
        "--auto_resume --model_path: not used",
        "--auto_resume --model_path gone.pth",
        Start.RESUME,
        2,
        says=("--model_path gone.pth is not used",),
    ),
    Row(
        "--auto_resume with other settings: another run, which is the next version",
        "--auto_resume --lr 1",
        Start.FRESH,
        3,
        is_new=True,
        says=(f"{VERSIONS}/version_2 is another run: it differs in --lr (1e-06 there)",),
    ),
    Row("--auto_resume with another length: no other run", "--auto_resume --num_epochs 7", Start.RESUME, 2),
    Row("--resume FILE of a version: it goes on there", f"--resume --model_path {V2}", Start.RESUME, 2),
    Row(
        "--resume FILE, an older one: what lies past it is moved aside inside its version",
        f"--resume --model_path {V0}/checkpoint_epoch_2.pth",
        Start.RESUME,
        0,
        moved=("checkpoint_epoch_3.pth",),
        says=(
            f"is moved aside, into {V0}/version_1; to go on with it: "
            f"python main.py --resume --model_path {V0}/version_1/",
        ),
    ),
    Row(
        "--resume FILE from elsewhere: it comes along into the next version",
        "--resume --model_path models/run/checkpoint_epoch_7.pth",
        Start.RESUME,
        3,
        is_new=True,
        bring_along=True,
    ),
    Row("target reached: nothing is made", "--auto_resume --num_epochs 2", Start.REACHED, 2),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_a_command_is_about_the_version_that_the_table_says(row: Row) -> None:
    for epoch in (1, 2, 3):
        write_epoch(0, epoch)
    (VERSIONS / "version_1").mkdir()
    for epoch in (1, 2):
        write_epoch(2, epoch)
    write_checkpoint(Path("models/run/checkpoint_epoch_7.pth"), record("", 7))
    plan = plan_of(*row.typed.split(), "--experiment", "x")
    assert plan.run.folder == VERSIONS / f"version_{row.version}"
    assert (plan.start, plan.is_new_version, plan.bring_along, plan.move_aside) == (
        row.start,
        row.is_new,
        row.bring_along,
        row.moved,
    )
    told = "\n".join([plan.reason, *plan.notes])
    for words in row.says:
        assert words in told


def test_a_version_without_a_checkpoint_is_passed_over_by_name() -> None:
    write_epoch(0, 1)
    for number in (1, 2):
        (VERSIONS / f"version_{number}").mkdir()
    plan = plan_of("--auto_resume", "--experiment", "x")
    assert plan.run.folder == V0
    assert plan.notes == tuple(f"passed over {VERSIONS}/version_{n}: it holds no checkpoint" for n in (2, 1))


def test_auto_resume_where_no_version_has_a_checkpoint_starts_the_next() -> None:
    (VERSIONS / "version_0").mkdir(parents=True)
    plan = plan_of("--auto_resume", "--experiment", "x")
    assert (plan.start, plan.run.folder, plan.is_new_version) == (Start.FRESH, VERSIONS / "version_1", True)


def test_auto_resume_with_a_model_path_starts_version_0_from_its_weights() -> None:
    write_foreign_weights(Path("pretrained.pth"))
    plan = plan_of("--auto_resume", "--model_path", "pretrained.pth", "--experiment", "x")
    assert (plan.start, plan.run.folder) == (Start.FROM_WEIGHTS, V0)


def test_auto_resume_steps_over_a_damaged_file_and_names_it() -> None:
    good = write_epoch(0, 1)
    damaged = write_epoch(0, 2)
    flip_a_bit(damaged.path)
    plan = plan_of("--auto_resume", "--experiment", "x")
    assert (plan.source, plan.move_aside) == (good, ("checkpoint_epoch_2.pth",))
    assert plan.notes[0].startswith(f"passed over {damaged.path}: its checksum does not match")


def test_a_newest_version_with_nothing_but_damaged_files_is_refused_and_no_older_one_is_taken() -> None:
    write_epoch(0, 1)
    flip_a_bit(write_epoch(1, 2).path)
    with pytest.raises(UserError, match=r"version_1 can be used: .*pass --fresh_start to start the next version at"):
        plan_of("--auto_resume", "--experiment", "x")


@pytest.mark.parametrize("action", ["--auto_resume", f"--resume --model_path {V0}"])
def test_what_was_typed_wins_and_the_rest_comes_from_the_checkpoint(action: str) -> None:
    """Also what would name a folder in models/: the name of a version says nothing of its settings."""
    write_epoch(0, 3, Options(experiment="x", lr=3e-5, seed=7, comment="b"))
    plan = plan_of(*action.split(), "--experiment", "x", "--num_epochs", "8", "--seed", "7")
    assert plan.options == Options(experiment="x", lr=3e-5, seed=7, comment="b", num_epochs=8)
    assert [change.name for change in plan.changes] == ["num_epochs"]
    if action == "--auto_resume":
        assert f"--lr 3e-05 is that of {V0}; it was not typed, and a new run would have 1e-06" in plan.notes
    assert plan.run.epoch_checkpoint(4).name == "checkpoint_epoch_4_b.pth"


def test_a_changed_detector_is_refused() -> None:
    write_epoch(0, 3)
    with pytest.raises(UserError, match="--group_size is 3 in"):
        plan_of("--resume", "--model_path", str(V0), "--experiment", "x", "--group_size", "4")


def test_a_version_with_all_that_is_asked_for_goes_before_a_newer_one_with_what_was_typed() -> None:
    """A loop over settings, repeated, comes back to each of its versions; with none typed, the newest goes on."""
    for number, options in enumerate([Options(), Options(seed=2), Options(algo=5)]):
        write_epoch(number, 1, options.replaced(experiment="x"))
    seed_2 = plan_of("--auto_resume", "--experiment", "x", "--seed", "2")
    assert (seed_2.start, seed_2.run.folder) == (Start.RESUME, VERSIONS / "version_1")
    assert seed_2.notes == (f"{V2} is another run: it differs in --algo (5 there), --seed (1234 there)",)
    assert plan_of("--auto_resume", "--experiment", "x").run.folder == V0
    assert plan_of("--auto_resume", "--experiment", "x", "--seed", "3").run.folder == VERSIONS / "version_3"


@pytest.mark.parametrize("typed", ["{plain}", "./{plain}", "{absolute}"])
def test_a_file_of_an_experiment_goes_on_there_without_naming_the_experiment(typed: str) -> None:
    written = write_epoch(0, 3)
    path = typed.format(plain=written.path, absolute=written.path.absolute())
    plan = plan_of("--resume", "--model_path", path)
    assert (plan.run.folder, plan.source, plan.bring_along) == (V0, written, False)


def test_what_was_moved_aside_inside_a_version_goes_on_as_a_new_version() -> None:
    write_epoch(0, 3)
    path = V0 / "version_1" / "checkpoint_epoch_9.pth"
    write_checkpoint(path, record("", 9, options=OPTIONS))
    plan = plan_of("--resume", "--model_path", path)
    assert (plan.run.folder, plan.bring_along, plan.is_new_version) == (VERSIONS / "version_1", True, True)


def test_a_version_that_another_process_takes_meanwhile_is_left_to_it() -> None:
    """Two processes that start at once plan the same number; the folder is made by one of them."""
    first, second = plan_of("--experiment", "x"), plan_of("--experiment", "x")
    make_run_folder(first)
    with pytest.raises(UserError, match=r"version_0 was made by another process.*start again"):
        make_run_folder(second)
    make_run_folder(plan_of("--experiment", "x"))
    assert sorted(path.name for path in VERSIONS.iterdir()) == ["version_0", "version_1"]


# Looking


def listed(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert main(["--list_checkpoints", *typed]) == 0
    return capsys.readouterr().out


def test_the_newest_version_is_listed_and_the_others_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for version in (0, 2, 10):
        write_epoch(version, 1)
    text = listed(capsys, "--experiment", "x")
    assert f"📋 Available Checkpoints in {VERSIONS}/version_10\n" in text
    assert f"\nOther version: {V0}\nOther version: {V2}\nSizes and ages:\n" in text
    document = json.loads(listed(capsys, "--experiment", "x", "--json"))
    assert (document["folder"], document["other_versions"]) == (f"{VERSIONS}/version_10", [str(V0), str(V2)])


def test_what_auto_resume_would_continue_is_listed_where_the_newest_version_has_no_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_epoch(0, 1)
    (VERSIONS / "version_1").mkdir()
    text = listed(capsys, "--experiment", "x")
    assert f"Available Checkpoints in {V0}\n" in text
    assert f"\nOther version: {VERSIONS}/version_1\nSizes and ages:\n" in text


def test_where_there_is_no_such_experiment_the_ones_with_checkpoints_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_epoch(0, 1)
    assert listed(capsys, "--experiment", "y") == (
        f"No checkpoints in outputs/y/checkpoints.\nRuns that have checkpoints:\n  {V0}\n"
    )
    assert not Path("outputs/y").exists()


def test_other_experiments_do_not_include_ones_own() -> None:
    write_epoch(0, 1)
    assert other_experiments(V0.absolute()) == []
    assert other_experiments(Path("models/run")) == [V0]
    assert other_versions(Path("models/run")) == []


def test_the_newest_version_is_validated_and_the_others_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for version in (0, 1):
        write_epoch(version, 1)
    assert main(["--validate_checkpoints", "--experiment", "x"]) == 1  # they lack most keys
    text = capsys.readouterr().out
    assert f"{VERSIONS}/version_1/checkpoint_epoch_1.pth: UNUSABLE" in text
    assert text.endswith(f"Not checked, another version: {V0}\n")


# Whole runs


def train(corpus: Path, *typed: str | Path, epochs: int = 1) -> int:
    settings = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", str(epochs), "--experiment", "x"]
    return main([*settings, *map(str, typed)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_new_run_is_the_next_version_and_nothing_is_moved(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert train(corpus) == 0
    said = capsys.readouterr().out
    for version in (0, 1):
        assert (
            f"  experiment:  x, version {version}\n"
            f"  run folder:  {VERSIONS}/version_{version}\n"
            f"  logs:        {LOGS}/version_{version}\n"
            f"  config:      {VERSIONS}/version_{version}/config.yaml\n"
        ) in said
        assert {"checkpoint_epoch_1.pth", "config.yaml", "training_log.csv"} <= set(
            names(VERSIONS / f"version_{version}")
        )
        assert len(names(LOGS / f"version_{version}")) == 1
    assert (names(VERSIONS), names(LOGS)) == (["version_0", "version_1"], ["version_0", "version_1"])
    assert not Path("models").exists() and not Path("logs").exists()


def test_a_run_that_goes_on_stays_in_its_version_and_ends_with_the_same_bits(corpus: Path) -> None:
    assert train(corpus, epochs=2) == 0
    assert train(corpus, epochs=1) == 0
    assert main(["--auto_resume", "--experiment", "x", "--num_epochs", "2"]) == 0
    assert names(VERSIONS) == ["version_0", "version_1"]
    once, stopped = (VERSIONS / f"version_{n}" / "checkpoint_epoch_2.pth" for n in (0, 1))
    assert differences(bits(once), bits(stopped)) == []
    assert read_settings_file(VERSIONS / "version_1" / "config.yaml").settings["num_epochs"] == 2


def test_what_lies_past_a_resumed_file_is_moved_aside_inside_its_version_and_its_logs(corpus: Path) -> None:
    assert train(corpus, epochs=2) == 0
    assert main(["--resume", "--model_path", str(V0 / "checkpoint_epoch_1.pth")]) == 0
    assert {"checkpoint_epoch_2.pth", "config.yaml"} <= set(names(V0 / "version_1"))
    assert len(names(LOGS / "version_0" / "version_1")) == 1
    assert (names(VERSIONS), names(LOGS)) == (["version_0"], ["version_0"])


def test_a_file_from_elsewhere_comes_along_into_a_new_version(corpus: Path) -> None:
    assert train(corpus) == 0
    path = V0 / "checkpoint_epoch_1.pth"
    assert train(corpus, "--resume", "--model_path", path, "--experiment", "y", epochs=2) == 0
    assert {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth", "config.yaml"} <= set(
        names(Path("outputs/y/checkpoints/version_0"))
    )


def test_training_again_from_a_versions_config_is_the_next_version_with_the_same_bits(corpus: Path) -> None:
    assert train(corpus, epochs=2) == 0
    assert main(["--config", str(V0 / "config.yaml")]) == 0
    assert_same_training(V0, VERSIONS / "version_1")
    assert (VERSIONS / "version_1" / "config.yaml").read_bytes() == (V0 / "config.yaml").read_bytes()
