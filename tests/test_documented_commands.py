"""Walks through the Checkpoint Management Guide: every command of it, in its order, with the result it documents.

Twice: as written, to the letter, up to the plan (which files lie there is written for the test); and then for real, as
one story in a folder of its own, in small numbers: where the guide trains 100 epochs with batches of 16, the story
trains 3 with batches of 4 on a few utterances, by flags appended to the command as written.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from main import main
from tests.asking import asked_training
from tests.conftest import write_corpus
from tests.records import record, write_checkpoint, write_foreign_weights
from training.checkpoints.record import CheckpointRecord
from training.commands.train import announce
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.planning.plan import Plan, Start
from training.runs.directory import RunDirectory
from training.runs.survey import survey_folder
from training.settings.options import Options
from utils.errors import UserError

RUN = "models/g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse"

# Every command of the guide, by the line it begins in.
COMMANDS = {
    16: f"""python main.py \\
        --model_type g3_heatmap \\
        --resume \\
        --model_path {RUN}/checkpoint_epoch_10.pth \\
        --num_epochs 100""",
    36: """python main.py \\
        --model_type g3_heatmap \\
        --fresh_start \\
        --num_epochs 100 \\
        --comment new_experiment""",
    46: """python main.py \\
        --model_type g3_heatmap \\
        --fresh_start \\
        --model_path models/pretrained/best_model_eer.pth \\
        --num_epochs 100""",
    66: """python main.py \\
        --model_type g3_heatmap \\
        --auto_resume \\
        --num_epochs 100 \\
        --comment my_experiment""",
    80: "python main.py --list_checkpoints --comment my_experiment",
    115: """python main.py \\
        --model_type g3_heatmap \\
        --batch_size 16 \\
        --num_epochs 100 \\
        --comment exp1""",
    129: f"""python main.py \\
        --model_type g3_heatmap \\
        --resume \\
        --model_path {RUN}_exp1/checkpoint_epoch_50_exp1.pth \\
        --num_epochs 100 \\
        --comment exp1""",
    144: f"""python main.py \\
        --model_type g3_heatmap \\
        --resume \\
        --model_path {RUN}_exp1/checkpoint_epoch_100_exp1.pth \\
        --num_epochs 150 \\
        --comment exp1_extended""",
    159: """python main.py \\
        --model_type g3_heatmap \\
        --fresh_start \\
        --model_path models/exp1/best_model_eer.pth \\
        --num_epochs 100 \\
        --comment exp2_from_pretrained""",
    174: """python main.py \\
        --model_type g3_heatmap \\
        --auto_resume \\
        --num_epochs 100 \\
        --comment exp_auto""",
    191: "python main.py --list_checkpoints --comment exp1",
    194: """python main.py \\
        --model_type g3_heatmap \\
        --resume \\
        --model_path models/.../checkpoint_epoch_75_exp1.pth \\
        --num_epochs 100 \\
        --comment exp1""",
    262: "python main.py --model_type g3_heatmap --num_epochs 100 --comment day1",
    267: """python main.py --model_type g3_heatmap --resume \\
        --model_path models/.../checkpoint_epoch_30_day1.pth \\
        --num_epochs 100 --comment day1""",
    272: """python main.py --model_type g3_heatmap --resume \\
        --model_path models/.../checkpoint_epoch_100_day1.pth \\
        --num_epochs 150 --comment day1_extended""",
    277: """python main.py --model_type g3_heatmap --fresh_start \\
        --model_path models/.../best_model_eer_day1.pth \\
        --num_epochs 100 --comment day3_new_exp""",
}


def arguments_of(typed: str) -> list[str]:
    """Return what a shell passes to main.py for a command as written."""
    words = shlex.split(typed.replace("\\\n", " "))
    assert words[:2] == ["python", "main.py"]
    return words[2:]


# As written, up to the plan.


@dataclass(frozen=True)
class Documented:
    """A command's documented result, where epochs `there` of the experiment `experiment` have been trained before."""

    line: int
    start: Start
    first_epoch: int
    last_epoch: int
    experiment: str | None = None
    there: tuple[int, ...] = ()


DOCUMENTED = [
    Documented(16, Start.RESUME, 11, 100, None, (10,)),
    Documented(36, Start.FRESH, 1, 100),
    Documented(36, Start.FRESH, 1, 100, "new_experiment", (10,)),
    Documented(46, Start.FROM_WEIGHTS, 1, 100),
    Documented(66, Start.FRESH, 1, 100),
    Documented(66, Start.RESUME, 38, 100, "my_experiment", (36, 37)),
    Documented(115, Start.FRESH, 1, 100),
    Documented(129, Start.RESUME, 51, 100, "exp1", (49, 50)),
    Documented(144, Start.RESUME, 101, 150, "exp1", (99, 100)),
    Documented(159, Start.FROM_WEIGHTS, 1, 100),
    Documented(174, Start.FRESH, 1, 100),
    Documented(174, Start.RESUME, 3, 100, "exp_auto", (1, 2)),
    Documented(194, Start.RESUME, 76, 100, "exp1", (75, 80)),
    Documented(262, Start.FRESH, 1, 100),
    Documented(267, Start.RESUME, 31, 100, "day1", (30,)),
    Documented(272, Start.RESUME, 101, 150, "day1", (100,)),
    Documented(277, Start.FROM_WEIGHTS, 1, 100, "day1", (100,)),
]


def write_what_is_there(experiment: str | None, epochs: tuple[int, ...]) -> None:
    options = Options(comment=experiment)
    run = RunDirectory.of(options)
    for epoch in epochs:
        write_checkpoint(run.epoch_checkpoint(epoch), record("", epoch, options=options))
    write_foreign_weights(run.best_weights)
    for folder in ("pretrained", "exp1"):
        write_foreign_weights(Path("models") / folder / "best_model_eer.pth")


def plan_of(arguments: list[str]) -> Plan:
    command = asked_training(*arguments)
    return decide(command, collect_facts(command))


def first_epoch(plan: Plan) -> int:
    return plan.checkpoint.epoch + 1 if plan.checkpoint else 1


@pytest.mark.parametrize("row", DOCUMENTED, ids=lambda row: f"line {row.line}: {row.start.value}")
@pytest.mark.usefixtures("workplace")
def test_as_written_a_command_is_planned_as_documented(row: Documented, capsys: pytest.CaptureFixture[str]) -> None:
    """The dots in `models/.../` stand for the folder of the run, as a reader fills them in."""
    write_what_is_there(row.experiment, row.there)
    folder = RunDirectory.of(Options(comment=row.experiment)).folder.name
    plan = plan_of([word.replace("...", folder) for word in arguments_of(COMMANDS[row.line])])
    assert (plan.start, first_epoch(plan), plan.options.num_epochs) == (row.start, row.first_epoch, row.last_epoch)
    announce(plan)
    said = capsys.readouterr().out
    if row.start is Start.RESUME:
        assert f"at epoch {row.first_epoch}\n" in said
        assert f"Target epochs:    {row.last_epoch}\n" in said
    else:
        assert f"Plan: train from epoch 1 to epoch {row.last_epoch}" in said


@pytest.mark.parametrize("line", [194, 267, 272, 277])
@pytest.mark.usefixtures("workplace")
def test_the_dots_of_the_guide_taken_literally_are_refused_with_what_to_do(line: int) -> None:
    with pytest.raises(UserError, match=r"there is no folder models/\.\.\.; --list_checkpoints shows"):
        plan_of(arguments_of(COMMANDS[line]))


# The table "Valid Combinations".
VALID = [
    ("", Start.FRESH),
    ("--fresh_start", Start.FRESH),
    (f"--resume --model_path {RUN}/checkpoint_epoch_10.pth", Start.RESUME),
    ("--auto_resume", Start.RESUME),
    (f"--model_path {RUN}/checkpoint_epoch_10.pth", Start.FROM_WEIGHTS),
    (f"--fresh_start --model_path {RUN}/checkpoint_epoch_10.pth", Start.FROM_WEIGHTS),
]


@pytest.mark.parametrize(("flags", "start"), VALID)
@pytest.mark.usefixtures("workplace")
def test_a_valid_combination_behaves_as_documented(flags: str, start: Start) -> None:
    write_what_is_there(None, (10,))
    assert plan_of(flags.split()).start is start


@pytest.mark.usefixtures("workplace")
def test_auto_resume_starts_fresh_where_there_is_no_checkpoint() -> None:
    assert plan_of(["--auto_resume"]).start is Start.FRESH


# The table "Invalid Combinations".
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--resume --fresh_start", "--fresh_start and --resume contradict each other"),
        ("--resume", "--resume needs a checkpoint: pass --model_path FILE"),
    ],
)
def test_an_invalid_combination_is_refused_as_documented(
    flags: str, words: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags.split()) == 2
    assert words in capsys.readouterr().err
    assert list(workplace.iterdir()) == []


# For real, in small numbers.

SMALL_EPOCH = {10: 1, 30: 1, 50: 1, 75: 2, 100: 3, 150: 4}
SMALL_RUN = "models/g3_heatmap_DF_CCE_3_4_0.001_group3_contrastiveFalse_ssl_modelcompact"  # of SMALL_SETTINGS
EXTENDED_RUN = "models/g3_heatmap_DF_CCE_4_4_0.001_group3_contrastiveFalse_ssl_modelcompact"
SMALL_SETTINGS = [
    "--batch_size",
    "4",
    "--lr",
    "1e-3",
    "--ssl_model",
    "compact",
    "--num_workers",
    "0",
    "--device",
    "cpu",
]


def in_small(typed: str, experiment: str | None, corpus: Path) -> list[str]:
    """Return a command as written, its epochs and run folder in small numbers, with the small settings appended."""
    folder = Path(SMALL_RUN).name + (f"_{experiment}" if experiment else "")
    small = typed.replace(RUN, SMALL_RUN).replace("...", folder)
    small = re.sub(r"(?<=checkpoint_epoch_)\d+", lambda found: str(SMALL_EPOCH[int(found.group())]), small)
    target = re.search(r"--num_epochs (\d+)", typed)
    num_epochs = SMALL_EPOCH[int(target.group(1)) if target else 100]
    appended = [*SMALL_SETTINGS, "--num_epochs", str(num_epochs), "--database_path", str(corpus)]
    return arguments_of(small) + appended


@dataclass(frozen=True)
class Step:
    """One command of the story; `interrupted_after` names the file after whose appearance Ctrl-C is pressed."""

    name: str
    typed: str
    folder: str
    epochs: tuple[int, ...]  # what the run folder holds afterwards
    says: tuple[str, ...]
    experiment: str | None = None
    interrupted_after: str = ""
    copy_weights: tuple[str, str] = ("", "")  # (from, to) before the command


STORY = [
    Step(
        "an earlier run, stopped after epoch 10",
        "python main.py --model_type g3_heatmap",
        SMALL_RUN,
        (1,),
        ("train from epoch 1 to epoch 3", "Stopped by SIGINT"),
        interrupted_after="checkpoint_epoch_1.pth",
    ),
    Step("line 16", COMMANDS[16], SMALL_RUN, (1, 2, 3), ("checkpoint_epoch_1.pth at epoch 2", "Done: 3 epochs")),
    Step(
        "line 36",
        COMMANDS[36],
        f"{SMALL_RUN}_new_experiment",
        (1, 2, 3),
        ("train from epoch 1 to epoch 3", "--fresh_start", "Done: 3 epochs"),
    ),
    Step(
        "line 46",
        COMMANDS[46],
        SMALL_RUN,
        (1, 2, 3),
        (
            "train from epoch 1 to epoch 3, from the weights in models/pretrained/best_model_eer.pth",
            "new optimizer",
            f"to go on with it: python main.py --resume --model_path {SMALL_RUN}/version_",
            "Done: 3 epochs",
        ),
        copy_weights=(f"{SMALL_RUN}/best_model_eer.pth", "models/pretrained/best_model_eer.pth"),
    ),
    Step(
        "line 66",
        COMMANDS[66],
        f"{SMALL_RUN}_my_experiment",
        (1, 2, 3),
        ("train from epoch 1 to epoch 3", "--auto_resume found no checkpoint of this run", "Done: 3 epochs"),
    ),
    Step(
        "line 80",
        COMMANDS[80],
        f"{SMALL_RUN}_my_experiment",
        (1, 2, 3),
        (
            f"📋 Available Checkpoints in {SMALL_RUN}_my_experiment",
            "📦 checkpoint_epoch_1_my_experiment.pth\n   Epoch: 1\n",
            "📦 checkpoint_epoch_3_my_experiment.pth\n   Epoch: 3\n",
            "📦 best_checkpoint_eer_my_experiment.pth\n",
        ),
    ),
    Step(
        "line 115, and stopped at epoch 50",
        COMMANDS[115],
        f"{SMALL_RUN}_exp1",
        (1,),
        ("train from epoch 1 to epoch 3", "Stopped by SIGINT", "--auto_resume"),
        interrupted_after="checkpoint_epoch_1_exp1.pth",
    ),
    Step(
        "line 129",
        COMMANDS[129],
        f"{SMALL_RUN}_exp1",
        (1, 2, 3),
        ("Resuming from:    epoch 2\n", "Target epochs:    3\n", "Done: 3 epochs"),
    ),
    Step(
        "line 144",
        COMMANDS[144],
        f"{EXTENDED_RUN}_exp1_extended",
        (3, 4),
        ("Resuming from:    epoch 4\n", "Target epochs:    4\n", "num_epochs: 3 -> 4", "Done: 4 epochs"),
    ),
    Step(
        "line 159",
        COMMANDS[159],
        f"{SMALL_RUN}_exp2_from_pretrained",
        (1, 2, 3),
        ("from epoch 1 to epoch 3, from the weights in models/exp1/best_model_eer.pth", "new optimizer", "Done: 3"),
        copy_weights=(f"{SMALL_RUN}_exp1/best_model_eer_exp1.pth", "models/exp1/best_model_eer.pth"),
    ),
    Step(
        "line 174, first run, interrupted",
        COMMANDS[174],
        f"{SMALL_RUN}_exp_auto",
        (1,),
        ("train from epoch 1 to epoch 3", "Stopped by SIGINT"),
        interrupted_after="checkpoint_epoch_1_exp_auto.pth",
    ),
    Step(
        "line 174, after the interruption",
        COMMANDS[174],
        f"{SMALL_RUN}_exp_auto",
        (1, 2, 3),
        ("--auto_resume found it as the latest usable checkpoint", "at epoch 2", "Done: 3 epochs"),
    ),
    Step(
        "line 191",
        COMMANDS[191],
        f"{SMALL_RUN}_exp1",
        (1, 2, 3),
        (f"📋 Available Checkpoints in {SMALL_RUN}_exp1", "📦 checkpoint_epoch_2_exp1.pth\n   Epoch: 2\n"),
    ),
    Step(
        "line 194",
        COMMANDS[194],
        f"{SMALL_RUN}_exp1",
        (1, 2, 3),
        (
            "Resuming from:    epoch 3\n",
            f"to go on with it: python main.py --resume --model_path {SMALL_RUN}_exp1/version_",
            "Done: 3 epochs",
        ),
        experiment="exp1",
    ),
    Step(
        "line 262, and interrupted at epoch 30",
        COMMANDS[262],
        f"{SMALL_RUN}_day1",
        (1,),
        ("train from epoch 1 to epoch 3", "Stopped by SIGINT"),
        interrupted_after="checkpoint_epoch_1_day1.pth",
    ),
    Step(
        "line 267",
        COMMANDS[267],
        f"{SMALL_RUN}_day1",
        (1, 2, 3),
        ("Resuming from:    epoch 2\n", "Done: 3 epochs"),
        experiment="day1",
    ),
    Step(
        "line 272",
        COMMANDS[272],
        f"{EXTENDED_RUN}_day1_extended",
        (3, 4),
        ("Resuming from:    epoch 4\n", "Target epochs:    4\n", "Done: 4 epochs"),
        experiment="day1",
    ),
    Step(
        "line 277",
        COMMANDS[277],
        f"{SMALL_RUN}_day3_new_exp",
        (1, 2, 3),
        (f"train from epoch 1 to epoch 3, from the weights in {SMALL_RUN}_day1/best_model_eer_day1.pth", "Done: 3"),
        experiment="day1",
    ),
]


@dataclass(frozen=True)
class Outcome:
    """What a command of the story left: its exit code, its output, and the epochs in the run folder."""

    code: int
    output: str
    errors: str
    epochs: tuple[int, ...]
    best: CheckpointRecord | None


@contextlib.contextmanager
def ctrl_c_after(path: Path | None) -> Iterator[None]:
    """Send this process a real SIGINT as soon as `path` is there; None for never."""
    done = threading.Event()

    def wait_and_interrupt() -> None:
        while path and not done.is_set():
            if path.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=wait_and_interrupt)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def tell(step: Step, corpus: Path) -> Outcome:
    source, target = map(Path, step.copy_weights)
    if step.copy_weights != ("", ""):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    output, errors = io.StringIO(), io.StringIO()
    interrupt_at = Path(step.folder, step.interrupted_after) if step.interrupted_after else None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), ctrl_c_after(interrupt_at):
        code = main(in_small(step.typed, step.experiment, corpus))
    run = survey_folder(Path(step.folder))
    epochs = tuple(found.epoch for found in run.checkpoints if not found.batches_done)
    return Outcome(code, output.getvalue(), errors.getvalue(), epochs, run.best)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Every command of the guide, one after the other in one folder."""
    corpus = write_corpus(tmp_path_factory.mktemp("small"), train=8, dev=4)
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("story"))
    try:
        return {step.name: tell(step, corpus) for step in STORY}
    finally:
        os.chdir(here)


@pytest.mark.parametrize("step", STORY, ids=lambda step: step.name)
def test_in_the_story_a_command_does_what_is_documented(step: Step, story: Mapping[str, Outcome]) -> None:
    outcome = story[step.name]
    assert outcome.code == (130 if step.interrupted_after else 0), outcome.errors
    for words in step.says:
        assert words in outcome.output
    assert outcome.epochs == step.epochs
    assert outcome.best is not None


def test_the_story_tells_every_command_of_the_guide() -> None:
    assert {step.typed for step in STORY} >= set(COMMANDS.values())
    assert {row.line for row in DOCUMENTED} == set(COMMANDS) - {80, 191}
