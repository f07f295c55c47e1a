"""What the progress of an epoch looks like on a real terminal and off it, and that no stream can stop a run."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from utils.progress import Standing, progress

REPOSITORY = Path(__file__).resolve().parent.parent


TRAINING = """
import sys
from utils.progress import progress
with progress("train", 3, line_every_s=0.0) as shown:
    for _ in range(3):
        shown.advance(utterances=16, loss=0.5)
print("tqdm" in sys.modules)
"""


class SetClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Terminal:
    """A real terminal of 100 columns: what is written to `stream` can be read back."""

    def __init__(self) -> None:
        self._controller, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 100))
        self.stream: TextIO = os.fdopen(terminal, "w", encoding="utf-8")

    def written(self) -> str:
        """Return what was not read before; the kernel hands it on in pieces, so what comes within 50 ms counts."""
        pieces = []
        while select.select([self._controller], [], [], 0.05)[0]:
            pieces.append(os.read(self._controller, 100_000))
        return b"".join(pieces).decode()

    def hang_up(self) -> None:
        os.close(self._controller)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


@pytest.fixture(params=["closed pipe", "full disk", "closed stream", "hung-up terminal"])
def broken_stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    monkeypatch.setenv("TERM", "xterm-256color")
    match request.param:
        case "closed pipe":
            reader, writer = os.pipe()
            os.close(reader)
            stream: TextIO = os.fdopen(writer, "w")
        case "full disk":
            if not Path("/dev/full").exists():
                pytest.skip("needs /dev/full, a disk that is always full")
            stream = Path("/dev/full").open("w")  # noqa: SIM115 - the test closes it, and that fails
        case "closed stream":
            stream = io.StringIO()
            stream.close()
        case _:
            terminal = Terminal()
            terminal.hang_up()
            stream = terminal.stream
    yield stream
    try:
        stream.close()
    except OSError:
        assert stream.closed


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        # 1600 utterances in 50 s; 100 batches in 50 s leave 20 for 10 s.
        (Standing("a", 120, 0, 100, 1600, 50.0, 0.12346), "a  100/120 batches  loss 0.1235  32.0 utt/s  0:00:10 left"),
        # Taken up at batch 90: these 10 took 50 s, so 20 more take 100 s.
        (Standing("b", 120, 90, 100, 160, 50.0, 0.5), "b  100/120 batches  loss 0.5000  3.2 utt/s  0:01:40 left"),
        (
            Standing("val", 2, 0, 2, 8, 2.0, None, "EER 12.35 %"),
            "val  2/2 batches  EER 12.35 %  4.0 utt/s  0:00:00 left",
        ),
        # Nothing is done yet, so nothing is known.
        (Standing("train", 120, 90, 90), "train  90/120 batches"),
        (Standing("train", 2, 0, 1, 8, 0.0, float("nan")), "train  1/2 batches  loss nan  0:00:00 left"),
    ],
)
def test_a_line_says_what_is_known(standing: Standing, line: str) -> None:
    assert standing.line() == line


def test_without_a_terminal_a_line_comes_when_ten_seconds_have_passed() -> None:
    stream, clock = io.StringIO(), SetClock()
    with progress("epoch 3/100  train", 100, stream=stream, clock=clock) as shown:
        for _ in range(30):
            clock.now_s += 1.0
            shown.advance(utterances=16, loss=0.25)
    assert stream.getvalue().splitlines() == [
        "epoch 3/100  train  10/100 batches  loss 0.2500  16.0 utt/s  0:01:30 left",
        "epoch 3/100  train  20/100 batches  loss 0.2500  16.0 utt/s  0:01:20 left",
        "epoch 3/100  train  30/100 batches  loss 0.2500  16.0 utt/s  0:01:10 left",
    ]


def test_an_epoch_taken_up_in_the_middle_counts_on_and_measures_from_there() -> None:
    stream, clock = io.StringIO(), SetClock()
    with progress("train", 100, first_batch=80, stream=stream, clock=clock) as shown:
        clock.now_s += 10.0
        shown.advance(utterances=16)
    assert stream.getvalue() == "train  81/100 batches  1.6 utt/s  0:03:10 left\n"


def test_in_the_first_epoch_the_others_are_taken_to_be_as_long_as_this_one() -> None:
    stream, clock = io.StringIO(), SetClock()
    with progress("train", 100, epochs_after=9, stream=stream, clock=clock) as shown:
        clock.now_s += 10.0
        shown.advance(utterances=16, batches=50)
    assert stream.getvalue() == "train  50/100 batches  1.6 utt/s  0:00:10 left, run 0:03:10\n"


def test_an_eer_that_costs_time_is_computed_seldom_enough_to_cost_a_hundredth() -> None:
    stream, clock, computed = io.StringIO(), SetClock(), 0

    def running_figure() -> str:
        nonlocal computed
        computed += 1
        clock.now_s += 0.1
        return "" if computed == 1 else f"EER {computed:.2f} %"

    with progress("train", 1000, stream=stream, line_every_s=0.0, clock=clock) as shown:
        for _ in range(250):
            clock.now_s += 0.1
            shown.advance(utterances=1, running_figure=running_figure)
    assert computed == 3  # after 0.1 s, then 10 s later each time
    lines = stream.getvalue().splitlines()
    assert "EER" not in lines[0]
    assert "EER 3.00 %" in lines[-1]


def test_each_line_is_flushed_at_once() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    clock = SetClock()
    with os.fdopen(writer, "w", buffering=4096) as stream, progress("train", 9, stream=stream, clock=clock) as shown:
        clock.now_s += 10.0
        shown.advance(utterances=1)
        assert os.read(reader, 1000).startswith(b"train  1/9 batches")
    os.close(reader)


def test_a_terminal_shows_one_bar_with_every_measure(terminal: Terminal) -> None:
    clock = SetClock()
    with progress(
        "epoch 3/100", 100, 49, epochs_after=97, seconds_of_epoch=9000.0, stream=terminal.stream, clock=clock
    ) as shown:
        terminal.written()
        clock.now_s += 60.0
        threading.Event().wait(0.11)  # tqdm draws again after a tenth of a second of its own
        shown.advance(utterances=16, loss=0.1234, running_figure=lambda: "EER 7.50 %")
        bar = terminal.written()
    assert bar.startswith("\repoch 3/100   50% |")
    assert bar.rstrip().endswith("| 50/100, loss 0.1234  EER 7.50 %  0.3 utt/s  0:50:00 left, run 243:20:00")
    assert "\n" not in bar


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("out of memory")], ids=repr)
def test_the_bar_is_gone_from_the_terminal_however_the_block_ends(
    terminal: Terminal, error: BaseException | None
) -> None:
    try:
        with progress("train", 100, stream=terminal.stream) as shown:
            shown.advance(utterances=16)
            if error:
                raise error
    except (KeyboardInterrupt, RuntimeError) as raised:
        assert raised is error
    *_, blank, rest = terminal.written().split("\r")
    assert blank.strip() == ""
    assert len(blank) >= 99
    assert rest == ""


def test_nothing_is_coloured(terminal: Terminal) -> None:
    environment = {**os.environ, "TQDM_COLOUR": "green", "NO_COLOR": "1"}  # tqdm reads the first when it is imported
    command = [sys.executable, "-c", TRAINING]
    child = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=terminal.stream, text=True, check=True
    )
    assert child.stdout == "True\n", "the bar was not shown"
    assert "\x1b" not in terminal.written()


def test_the_bar_starts_no_thread(terminal: Terminal) -> None:
    before = threading.active_count()
    with progress("train", 100, stream=terminal.stream):
        assert threading.active_count() == before


def test_a_dumb_terminal_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with progress("train", 2, stream=terminal.stream, line_every_s=0.0) as shown:
        shown.advance(utterances=16)
    assert terminal.written().startswith("train  1/2 batches")


def test_no_stream_can_stop_a_run(broken_stream: TextIO) -> None:
    with progress("train", 300, stream=broken_stream, line_every_s=0.0) as shown:
        for _ in range(300):
            shown.advance(utterances=16, loss=0.5)


def test_a_terminal_that_goes_away_in_mid_epoch_does_not_stop_a_run(terminal: Terminal) -> None:
    with progress("train", 3, stream=terminal.stream) as shown:
        shown.advance(utterances=16)
        terminal.hang_up()
        threading.Event().wait(0.11)
        shown.advance(utterances=16)


def test_off_a_terminal_tqdm_is_not_imported() -> None:
    child = subprocess.run([sys.executable, "-c", TRAINING], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert child.stdout == "False\n"
    assert child.stderr.count("batches") == 3


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2> >(true)"])
def test_a_process_whose_stderr_is_lost_ends_as_usual(redirection: str) -> None:
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, TRAINING]
    child = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False, timeout=30)
    assert (child.returncode, child.stdout) == (0, "False\n")
