"""What SIGINT, SIGTERM and SIGUSR1 do to a real process that trains; each child says "ready" before it is sent one."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from utils.interruption import StopRequest, stop_on_signals

REPOSITORY = Path(__file__).resolve().parent.parent

# What every child starts with. A test run may itself be a background job, for which SIGINT is ignored.
PREAMBLE = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from utils.interruption import *
def say(*words): print(*words, flush=True)
"""
# Waits for the request, then for a line on stdin as the step that is being finished, then "saves".
TRAINING = """
with stop_on_signals() as stop:
    say("ready")
    while not stop.requested:
        time.sleep(0.005)
    say("requested")
    sys.stdin.readline()
    say("saved")
sys.exit(stop.exit_code)
"""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children in process groups of their own, each ready on return; what is left of them ends with the test."""
    children = []

    def start_child(code: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        children.append(child)
        expect(child, "ready")
        return child

    yield start_child
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a child that sends the signals itself."""
    command = [sys.executable, "-c", PREAMBLE + code]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)


def expect(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == f"{line}\n"


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_the_step_finish_and_sets_the_exit_code(
    start: Start, number: signal.Signals, exit_code: int
) -> None:
    child = start(TRAINING)
    child.send_signal(number)
    expect(child, "requested")
    output, errors = child.communicate("\n", timeout=20)
    assert output == "saved\n"
    assert child.returncode == exit_code
    assert errors.startswith({signal.SIGINT: "Ctrl-C: ", signal.SIGTERM: "SIGTERM: "}[number])
    assert "finishing the step, then saving" in errors
    assert errors.count("\n") == 1


def test_a_second_ctrl_c_stops_at_once(start: Start) -> None:
    child = start(TRAINING)
    child.send_signal(signal.SIGINT)
    expect(child, "requested")
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=20)
    assert "saved" not in output
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert child.returncode == -signal.SIGINT, "a shell reports this as 130"


def test_repeated_sigterm_still_saves(start: Start) -> None:
    child = start(TRAINING)
    for _ in range(3):
        child.send_signal(signal.SIGTERM)
    expect(child, "requested")
    child.send_signal(signal.SIGTERM)
    assert child.communicate("\n", timeout=20)[0] == "saved\n"
    assert child.returncode == 143


def test_one_ctrl_c_after_sigterm_still_saves_and_the_first_signal_names_the_exit_code(start: Start) -> None:
    child = start(TRAINING)
    child.send_signal(signal.SIGTERM)
    expect(child, "requested")
    child.send_signal(signal.SIGINT)
    assert child.communicate("\n", timeout=20)[0] == "saved\n"
    assert child.returncode == 143


def test_a_signal_ignored_from_the_start_stays_ignored(start: Start) -> None:
    child = start("signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + TRAINING)
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        child.send_signal(number)
    expect(child, "requested")
    child.communicate("\n", timeout=20)
    assert child.returncode == 143


def test_a_closed_stderr_does_not_keep_the_step_from_being_saved(start: Start) -> None:
    child = start(TRAINING)
    assert child.stderr is not None
    child.stderr.close()
    child.send_signal(signal.SIGTERM)
    expect(child, "requested")
    assert child.communicate("\n", timeout=20)[0] == "saved\n"
    assert child.returncode == 143


def test_without_a_stderr_the_file_that_has_its_number_stays_clean(tmp_path: Path) -> None:
    code = (
        "file = open(sys.argv[1], 'w')\n"
        "with stop_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "say(file.fileno(), stop.requested)"
    )
    command = ["bash", "-c", '"$0" -c "$1" "$2" 2>&-', sys.executable, PREAMBLE + code, str(tmp_path / "last.pth")]
    child = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False, timeout=20)
    assert child.stdout == "2 True\n"
    assert (tmp_path / "last.pth").read_bytes() == b""


def test_on_a_terminal_the_announcement_has_a_line_of_its_own(start: Start) -> None:
    terminal, child_side = pty.openpty()
    child = start('sys.stderr.write("a progress bar")\n' + TRAINING, stderr=child_side)
    os.close(child_side)
    child.send_signal(signal.SIGINT)
    expect(child, "requested")
    child.communicate("\n", timeout=20)
    seen = os.read(terminal, 1000).decode()
    os.close(terminal)
    assert seen.startswith("a progress bar\r\nCtrl-C: finishing the step")


def test_forked_children_neither_announce_nor_swallow() -> None:
    child = run(
        "import multiprocessing\n"
        "with stop_on_signals() as stop:\n"
        "    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    worker.start(); time.sleep(0.1)\n"
        "    os.kill(worker.pid, signal.SIGINT); time.sleep(0.1)\n"
        "    alive = worker.is_alive()\n"
        "    worker.terminate(); worker.join(20)\n"
        "    say(alive, worker.exitcode, stop.requested)"
    )
    assert child.stdout == f"True {-signal.SIGTERM} False\n"
    assert child.stderr == ""


def test_the_earlier_handlers_come_back_even_after_an_exception() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="a bug"), stop_on_signals():
        raise ValueError("a bug")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[tuple[bool, bool]] = []

    def train() -> None:
        with stop_on_signals() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM) == before))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_a_run_that_nobody_stopped_exits_with_0() -> None:
    assert StopRequest().exit_code == 0


# Saves when it is asked to, and says how often; "stop" is what SIGTERM leads to.
SAVING = """
ignore_save_requests()
os.kill(os.getpid(), signal.SIGUSR1)
with stop_on_signals() as stop:
    say("ready")
    while not stop.requested:
        time.sleep(0.005)
        if stop.take_save_request():
            say("saved")
os.kill(os.getpid(), signal.SIGUSR1)
say("drawn")
sys.exit(stop.exit_code)
"""


def test_sigusr1_asks_for_a_save_and_ends_nothing(start: Start) -> None:
    child = start(SAVING)
    for _ in range(2):
        child.send_signal(signal.SIGUSR1)
        expect(child, "saved")
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=20)
    assert (output, child.returncode) == ("drawn\n", 143)
    assert errors.splitlines()[:2] == ["SIGUSR1: saving after this step, then going on"] * 2
    assert errors.count("\n") == 3


def test_before_and_after_training_sigusr1_is_harmless(start: Start) -> None:
    """The child sends it to itself before and after the block, and says nothing of it."""
    child = start(SAVING)
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=20)
    assert (output, child.returncode) == ("drawn\n", 143)
    assert "SIGUSR1" not in errors


def test_a_request_is_taken_once_and_repeats_before_that_are_one() -> None:
    child = run(
        "with stop_on_signals() as stop:\n"
        "    for _ in range(3): os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    say(stop.requested, stop.take_save_request(), stop.take_save_request(), stop.exit_code)"
    )
    assert child.stdout == "False True False 0\n"
    assert child.stderr == "SIGUSR1: saving after this step, then going on\n"


def test_forked_children_leave_sigusr1_to_their_parent() -> None:
    child = run(
        "import multiprocessing\n"
        "with stop_on_signals() as stop:\n"
        "    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(0.5,))\n"
        "    worker.start(); time.sleep(0.1)\n"
        "    os.kill(worker.pid, signal.SIGUSR1); worker.join(20)\n"
        "    say(worker.exitcode, stop.save_requested)"
    )
    assert (child.stdout, child.stderr) == ("0 False\n", "")
