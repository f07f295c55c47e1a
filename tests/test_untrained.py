"""What a start left that ended before anything was saved is taken over by the next one, and not kept as a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from main import main
from tests.small_state import small_state
from tests.toy_task import registered
from training.reports.reporting import Reports
from training.reports.story import Moment, Story
from training.runs.survey import survey_folder
from training.runs.untrained import is_untrained
from training.settings.options import Options

RUN = Path("models/echo_DF_CCE_1_4_1e-06_group3_contrastiveFalse")
VERSIONS = Path("outputs/x/checkpoints")
EXPERIMENT = ("--experiment", "x")


@pytest.fixture(autouse=True)
def known(workplace: Path) -> Iterator[None]:
    with registered():
        yield


@dataclass
class Listening:
    """A report that notes when it was asked."""

    told: list[Moment]
    place: object = "a list"
    moments: frozenset[Moment] = frozenset(Moment)

    def tell(self, story: Story) -> None:
        assert story.moment
        self.told.append(story.moment)

    def close(self) -> None:
        pass


def train(corpus: Path, *more: str) -> int:
    flags = ["--model_type", "echo", "--batch_size", "4", "--num_workers", "0", "--num_epochs", "1"]
    return main([*flags, "--database_path", str(corpus), *more])


def started(corpus: Path, *more: str, before_training: Callable[[], object]) -> int:
    """Start a training in a fork that does something in the place of its first step, and return its process."""
    process = os.fork()
    if process == 0:
        try:
            from training.loop.trainer import Trainer  # noqa: PLC0415  (the fork's alone is changed)

            Trainer.train = lambda _: before_training()  # type: ignore[assignment, method-assign]
            train(corpus, *more)
        finally:
            os._exit(1)
    return process


def kill_a_start(corpus: Path, *more: str) -> None:
    """Start a training and kill it after all that comes before its first step."""
    process = started(corpus, *more, before_training=lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def names(*folders: Path) -> set[str]:
    return {
        path.name.partition(".tfevents")[0] for folder in folders for path in folder.iterdir() if path.name != ".lock"
    }


def test_starts_that_were_killed_before_their_first_save_leave_no_version_behind(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--auto_resume", "--fresh_start", "--auto_resume"):
        kill_a_start(corpus, flag)
        assert is_untrained(survey_folder(RUN))
    assert train(corpus, "--auto_resume") == 0
    assert f"a start that ended before it saved anything left {RUN}: this one takes it over" in capsys.readouterr().out
    logs = Path("logs", RUN.name)
    assert not [name for name in names(RUN, logs) if name.startswith("version_")]
    assert sum(path.name.startswith("events") for path in logs.iterdir()) == 1


def test_a_start_that_was_killed_after_it_had_figures_and_before_its_first_save_leaves_no_version_behind(
    corpus: Path,
) -> None:
    figures = ("--val_interval", "1")
    process = os.fork()
    if process == 0:
        try:
            from training.saving.background_saving import BackgroundSaver  # noqa: PLC0415

            BackgroundSaver.begin = lambda *_: None  # type: ignore[method-assign]  # a disk that takes its time
            BackgroundSaver.wait = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, method-assign]
            train(corpus, "--auto_resume", *figures)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert train(corpus, "--auto_resume", *figures) == 0
    assert not [name for name in names(RUN, Path("logs", RUN.name)) if name.startswith("version_")]


def test_a_start_from_another_folder_that_was_killed_before_its_first_step_leaves_no_version_of_logs_behind(
    corpus: Path,
) -> None:
    assert train(corpus) == 0
    elsewhere = ("--num_epochs", "2", "--comment", "second", "--resume")
    source = ("--model_path", str(RUN / "checkpoint_epoch_1.pth"))
    for _ in range(2):
        kill_a_start(corpus, *elsewhere, *source)
    assert train(corpus, *elsewhere, *source) == 0
    (second,) = Path("models").glob("*_second")
    assert not [name for name in names(second, Path("logs", second.name)) if name.startswith("version_")]
    assert sum(name == "events.out" for name in names(Path("logs", second.name))) == 1


def test_figures_of_a_new_run_are_told_once_its_first_save_has_ended() -> None:
    told: list[Moment] = []
    reports = Reports([Listening(told)], lambda: Story(Options(), small_state().history), is_new=True)
    reports.tell(Moment.BEGUN)
    reports.tell(Moment.STEP_VALIDATED)
    reports.tell(Moment.EPOCH_COMPLETED)
    assert told == [Moment.BEGUN]
    reports.hold_no_more()
    assert told == [Moment.BEGUN, Moment.STEP_VALIDATED, Moment.EPOCH_COMPLETED]
    reports.tell(Moment.STEP_VALIDATED)
    assert len(told) == 4


def test_what_was_trained_is_moved_aside_though_a_killed_start_came_after_it(corpus: Path) -> None:
    assert train(corpus) == 0
    kill_a_start(corpus, "--fresh_start")
    assert train(corpus, "--fresh_start") == 0
    assert names(RUN) >= {"version_1", "checkpoint_epoch_1.pth"}
    assert not (RUN / "version_2").exists()
    assert "checkpoint_epoch_1.pth" in names(RUN / "version_1")


def test_a_version_of_an_experiment_in_which_nothing_was_trained_is_the_next_version(corpus: Path) -> None:
    for _ in range(2):
        kill_a_start(corpus, *EXPERIMENT)
    assert train(corpus, *EXPERIMENT) == 0
    assert names(VERSIONS) == {"version_0"}
    kill_a_start(corpus, *EXPERIMENT, "--lr", "0.5")
    assert train(corpus, *EXPERIMENT) == 0
    assert names(VERSIONS, Path("outputs/x/logs")) == {"version_0", "version_1"}
    assert "lr: 1.0e-06" in (VERSIONS / "version_1/config.yaml").read_text(), "not that of the killed start"


def test_a_version_that_a_living_process_has_begun_is_left_to_it(corpus: Path) -> None:
    told, tell = os.pipe()
    process = started(corpus, *EXPERIMENT, before_training=lambda: os.write(tell, b".") and signal.sigwait([]))
    assert os.read(told, 1) == b"."
    try:
        assert train(corpus, *EXPERIMENT) == 0
        assert names(VERSIONS) == {"version_0", "version_1"}
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert "checkpoint_epoch_1.pth" in names(VERSIONS / "version_1")


def save_a_checkpoint(run: Path, _logs: Path) -> None:
    (run / "checkpoint_epoch_1.pth").write_bytes(b"damaged")


def log_an_epoch(run: Path, _logs: Path) -> None:
    with (run / "training_log.csv").open("a") as file:
        file.write("1,2026\n")


def tell_an_epoch(run: Path, _logs: Path) -> None:
    page = run / "report.html"
    page.write_text(page.read_text().replace('name="epochs" content="0"', 'name="epochs" content="1"'))


def draw_a_point(_run: Path, logs: Path) -> None:
    """A validation within the first epoch has its point, and no checkpoint yet."""
    (events,) = logs.glob("events*")
    with events.open("ab") as file:
        file.write(b"one more entry")


def put_something_there(run: Path, _logs: Path) -> None:
    (run / "notes.txt").write_text("of the user")


RECORDS = [save_a_checkpoint, log_an_epoch, tell_an_epoch, draw_a_point, put_something_there]


@pytest.mark.parametrize("record", RECORDS)
def test_whatever_tells_of_training_or_is_the_users_keeps_a_folder_from_being_taken_over(
    corpus: Path, record: Callable[[Path, Path], None]
) -> None:
    kill_a_start(corpus)
    record(RUN, Path("logs", RUN.name))
    assert not is_untrained(survey_folder(RUN))
