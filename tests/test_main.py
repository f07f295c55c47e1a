"""The program as a process: exit codes, one sentence and no traceback, and outputs that are gone or have no emoji."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from main import main
from tests.conftest import REPOSITORY, SMALL_RUN, Run, command_line, write_corpus
from tests.records import record, write_checkpoint
from training.runs.directory import RunDirectory
from training.settings.options import Options

RUN = RunDirectory.of(Options())


def write_epoch(number: int) -> None:
    write_checkpoint(RUN.epoch_checkpoint(number), record("", number))


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--resume"], "error: --resume needs a checkpoint: pass --model_path FILE"),
        (["--resume", "--fresh_start"], "contradict each other"),
        (["--lr", "0"], "error: --lr must be above 0, found 0.0"),
        (["--lerning_rate", "1"], "error: --lerning_rate is no flag: did you mean --lr?"),
        (["--config", "nowhere.yaml"], "error: --config nowhere.yaml cannot be read"),
    ],
)
def test_a_usage_error_exits_2_in_a_sentence_and_creates_nothing(
    typed: list[str], words: str, run: Run, workplace: Path
) -> None:
    done = run(*typed)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and "Traceback" not in done.stderr
    assert everything(workplace) == []


def test_help_exits_0(run: Run) -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--auto_resume" in done.stdout


def test_help_says_what_the_exit_codes_and_signals_mean(run: Run) -> None:
    said = run("--help").stdout
    assert "0 done, or nothing left to do; 1 failed; 2 usage; 130 Ctrl-C; 143 SIGTERM" in said
    assert "Ctrl-C and SIGTERM finish the step, save and leave; SIGUSR1 saves and goes on" in said


def test_a_model_path_that_is_not_there_exits_1_in_a_sentence(run: Run, workplace: Path) -> None:
    done = run("--resume", "--model_path", "models/nowhere.pth")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --model_path models/nowhere.pth does not exist")
    assert done.stderr.count("\n") == 1
    assert everything(workplace) == []


def test_a_database_path_that_is_not_there_exits_1_after_the_plan_and_creates_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--database_path", "/nowhere/LA", "--ssl_model", "compact"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("Plan: train from epoch 1 to epoch 100\n")
    assert said.err.startswith("error: --database_path /nowhere/LA is not")
    assert said.err.count("\n") == 1
    assert everything(workplace) == []


def test_a_front_end_that_cannot_be_found_is_an_error_that_names_compact(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--database_path", str(corpus), "--ssl_model", "/nowhere/xls-r"]) == 1
    error = capsys.readouterr().err
    assert "/nowhere/xls-r" in error and "--ssl_model compact" in error
    assert everything(workplace) == []


@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_missing_audio_file_is_named_before_training_starts_and_before_anything_is_created(
    part: str, workplace: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus(tmp_path_factory.mktemp("incomplete"), train=4, dev=4)
    name = f"LA_{part[0].upper()}_0000002"
    (folder / f"ASVspoof2019_LA_{part}" / "flac" / f"{name}.flac").unlink()
    assert main(["--database_path", str(folder), *SMALL_RUN]) == 1
    assert name in capsys.readouterr().err
    assert everything(workplace) == []


@pytest.mark.parametrize("device", ["cuda", "cuda:7"])
def test_a_gpu_that_is_not_there_is_refused_with_the_way_out(
    device: str, corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() > int(device.partition(":")[2] or 0):
        pytest.skip("this machine has that GPU")
    assert main(["--database_path", str(corpus), *SMALL_RUN, "--device", device]) == 1
    error = capsys.readouterr().err
    assert f"--device {device} is not there" in error and "--device cpu" in error
    assert everything(workplace) == []


def test_the_run_folder_lies_where_the_program_is_started(corpus: Path, run: Run, workplace: Path) -> None:
    done = run("--database_path", corpus, *SMALL_RUN, "--num_epochs", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in workplace.iterdir()) == ["logs", "models"]
    assert len(list((workplace / "models").glob("*/checkpoint_epoch_1.pth"))) == 1


@pytest.mark.parametrize(
    "environment", [{"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_a_terminal_without_emoji_gets_a_question_mark(environment: dict[str, str], run: Run) -> None:
    write_epoch(1)
    done = run("--list_checkpoints", **({"PYTHONCOERCECLOCALE": "0"} | environment))
    assert (done.returncode, done.stderr) == (0, "")
    assert "? Available Checkpoints in models/" in done.stdout


@pytest.mark.parametrize("typed", [["--list_checkpoints"], ["--help"]])
def test_a_reader_that_goes_away_leaves_no_traceback(typed: list[str], workplace: Path) -> None:
    """As `| head -1` does; here nothing is read at all."""
    write_epoch(1)
    reading, writing = os.pipe()
    with subprocess.Popen(command_line(*typed), stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        os.close(reading)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&-", "2>&-", "> /dev/full"])
def test_an_output_that_is_closed_or_full_ends_no_run(redirection: str, workplace: Path) -> None:
    write_epoch(1)
    line = f'exec "$@" {redirection}'
    typed = command_line("--list_checkpoints")
    done = subprocess.run(["sh", "-c", line, "sh", *typed], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


SLOW_READING = """
import sys, time
import main
from utils.ending import raise_on_signals
raise_on_signals()
def read_slowly(arguments):
    print("reading", flush=True)
    time.sleep(60)
main.read_command = read_slowly
sys.exit(main.main())
"""


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "exit_code"), STOPS)
def test_a_stop_before_training_says_so_and_has_its_exit_code(number: signal.Signals, exit_code: int) -> None:
    """A stop while something slow is read; here settings that never come."""
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_READING], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "reading\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert "Stopped at once" in errors and "Traceback" not in errors


# Sends the program a signal while it imports a module, and lets the import take what is raised for a missing module.
WHILE_IMPORTING = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
module, number = sys.argv[1], int(sys.argv[2])
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == module:
            try:
                os.kill(os.getpid(), number)
            except BaseException:
                print("swallowed", flush=True)
sys.meta_path.insert(0, Finder)
"""
PROGRAM = "sys.argv = ['main.py', '--help']\nrunpy.run_path('main.py', run_name='__main__')"


# The same once the program carries something out, which imports torch for one.
LATER = """
from utils.ending import raise_on_signals
raise_on_signals()
import wave
"""


@pytest.mark.parametrize(("code", "module"), [(PROGRAM, "training.commands"), (LATER, "wave")])
@pytest.mark.parametrize(("number", "exit_code"), STOPS)
def test_a_stop_while_modules_are_imported_ends_the_program_with_a_sentence(
    code: str, module: str, number: signal.Signals, exit_code: int
) -> None:
    typed = [sys.executable, "-c", WHILE_IMPORTING + code, module, str(int(number))]
    done = subprocess.run(typed, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", "\nStopped at once\n")
