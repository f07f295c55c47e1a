"""What a person sees while an epoch runs: a bar on a terminal, one plain line every few seconds anywhere else.

    with progress("epoch 3/100  train", total_batches=1587, first_batch=119, epochs_after=97) as shown:
        for batch in batches:
            shown.advance(utterances=16, loss=mean_loss, running_figure=eer_so_far)

    epoch 3/100  train  120/1587 batches  loss 0.1234  EER 3.21 %  31.4 utt/s  0:07:12 left, run 17:40:02

The bar is gone when the block ends, however it ends: what stays on a terminal are the lines others print. Nothing is
ever coloured, whatever NO_COLOR says, and no thread is started, since data loading may fork. Nothing that happens to
the stream stops a run: text that a closed pipe, a full disk or a terminal that is gone refuses is lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, TextIO

LINE_EVERY_S = 10.0
FIGURE_EVERY_S = 1.0


@dataclass(frozen=True)
class Standing:
    """How far an epoch has come. Batches count from the epoch's start, utterances and seconds from this process's.

    `unit` is the word for batches, or for what else is gone through, which then counts as utterances too. `loss` and
    `figure`, a figure with its name, are shown as they are given; None and "" show nothing. `epochs_after` are those
    that follow this one, None where that is nobody's question; `seconds_of_epoch` is what one takes, None where it is
    not known yet: then as long as this one, without validation.

    >>> Standing("train", 1587, first_batch=100, batches=120, utterances=320, elapsed_s=10.0, loss=0.5).line()
    'train  120/1587 batches  loss 0.5000  32.0 utt/s  0:12:14 left'
    """

    label: str
    total_batches: int
    first_batch: int = 0
    batches: int = 0
    utterances: int = 0
    elapsed_s: float = 0.0
    loss: float | None = None
    figure: str = ""
    unit: str = "batches"
    epochs_after: int | None = None
    seconds_of_epoch: float | None = None

    def line(self) -> str:
        """Return all of it as one line without its end."""
        return "  ".join([self.label, f"{self.batches}/{self.total_batches} {self.unit}", *self.measures()])

    def measures(self) -> list[str]:
        """Return loss, figure, rate and time left, without those that are not known."""
        texts = []
        if self.loss is not None:
            texts.append(f"loss {self.loss:.4f}")
        if self.figure:
            texts.append(self.figure)
        if self.elapsed_s > 0:
            what = "utt" if self.unit == "batches" else self.unit
            texts.append(f"{self.utterances / self.elapsed_s:.1f} {what}/s")
        left_s = self.left_s()
        if left_s is not None:
            texts.append(f"{_hours_minutes_seconds(left_s)} left")
        run_left_s = self.run_left_s()
        if run_left_s is not None:
            texts[-1] += f", run {_hours_minutes_seconds(run_left_s)}"
        return texts

    def left_s(self) -> float | None:
        """Return the seconds that the other batches take at the rate so far; None before the first one is done."""
        done = self.batches - self.first_batch
        return None if done <= 0 else self.elapsed_s / done * (self.total_batches - self.batches)

    def run_left_s(self) -> float | None:
        """Return the seconds to the end of the run; None before the first batch is done, or where nobody asked.

        >>> Standing("train", 100, batches=50, elapsed_s=5.0, epochs_after=2, seconds_of_epoch=12.0).run_left_s()
        29.0
        """
        left_s = self.left_s()
        if left_s is None or self.epochs_after is None:
            return None
        per_epoch_s = self.seconds_of_epoch
        if per_epoch_s is None:
            per_epoch_s = self.elapsed_s / (self.batches - self.first_batch) * self.total_batches
        return left_s + self.epochs_after * per_epoch_s


class Progress:
    """The one thing a loop tells: that batches are done. `progress` makes it."""

    def __init__(self, standing: Standing, display: _Display, clock: Callable[[], float]) -> None:
        self._standing = standing
        self._display = display
        self._clock = clock
        self._started_s = clock()
        self._next_figure_s = 0.0

    def advance(
        self,
        utterances: int,
        loss: float | None = None,
        running_figure: Callable[[], str] | None = None,
        batches: int = 1,
    ) -> None:
        """Count batches of so many utterances in all, and show them with the loss; never raises for the stream.

        `running_figure` gives a figure of the epoch so far, "" where there is none yet. To compute it for every batch
        may slow training down, so it is called now and then, for less than a hundredth of the time.
        """
        elapsed_s = self._clock() - self._started_s
        self._standing = replace(
            self._standing,
            batches=self._standing.batches + batches,
            utterances=self._standing.utterances + utterances,
            elapsed_s=elapsed_s,
            loss=loss,
        )
        if running_figure and elapsed_s >= self._next_figure_s:
            self._standing = replace(self._standing, figure=running_figure())
            cost_s = self._clock() - self._started_s - elapsed_s
            self._next_figure_s = elapsed_s + max(FIGURE_EVERY_S, 100 * cost_s)
        self._display.show(self._standing)

    def make_way(self) -> None:
        """Take a bar off its line until the next `advance`, for others to print there."""
        self._display.hide()


@contextmanager
def progress(
    label: str,
    total_batches: int,
    first_batch: int = 0,
    *,
    unit: str = "batches",
    epochs_after: int | None = None,
    seconds_of_epoch: float | None = None,
    stream: TextIO | None = None,
    line_every_s: float = LINE_EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show how an epoch of `total_batches` goes on, `first_batch` of them done by an earlier process.

    `epochs_after` and `seconds_of_epoch` are those of `Standing`: with them the time left for the run is shown, too.
    `stream` None is stderr. Without a terminal a line comes at most every `line_every_s` seconds of `clock`, and the
    first one after as long.
    """
    output = _Output(sys.stderr if stream is None else stream)
    standing = Standing(
        label,
        total_batches,
        first_batch,
        batches=first_batch,
        unit=unit,
        epochs_after=epochs_after,
        seconds_of_epoch=seconds_of_epoch,
    )
    display = _Bar(standing, output) if output.is_terminal() else _Lines(output, line_every_s)
    try:
        yield Progress(standing, display, clock)
    finally:
        display.close()


class _Display(Protocol):
    def show(self, standing: Standing) -> None: ...

    def hide(self) -> None: ...

    def close(self) -> None: ...


class _Lines:
    """A line when the last one is long enough ago."""

    def __init__(self, output: _Output, line_every_s: float) -> None:
        self._output = output
        self._line_every_s = line_every_s
        self._shown_s = 0.0

    def show(self, standing: Standing) -> None:
        if standing.elapsed_s - self._shown_s >= self._line_every_s:
            self._shown_s = standing.elapsed_s
            self._output.write(f"{standing.line()}\n")
            self._output.flush()

    def hide(self) -> None:
        """Leave the last line as it is."""

    def close(self) -> None:
        """Leave the last line as it is."""


class _Bar:
    """A tqdm bar, redrawn at most ten times per second."""

    def __init__(self, standing: Standing, output: _Output) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - a run under nohup does not need it

        class Bar(tqdm):  # type: ignore[type-arg,unused-ignore]
            monitor_interval = 0  # no watching thread: a process with threads should not fork

        self._bar = Bar(
            desc=standing.label,
            total=standing.total_batches,
            initial=standing.batches,
            file=output,
            leave=False,
            dynamic_ncols=True,
            miniters=1,
            colour=None,  # given, so that TQDM_COLOUR does not count
            bar_format="{desc}  {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def show(self, standing: Standing) -> None:
        self._bar.set_postfix_str("  ".join(standing.measures()), refresh=False)
        self._bar.update(standing.batches - self._bar.n)

    def hide(self) -> None:
        self._bar.clear()

    def close(self) -> None:
        self._bar.close()


class _Output:
    """The stream, or what is left of it: a text that cannot be written is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # sys.stderr is None in a process that was started without one
        self.encoding = getattr(stream, "encoding", None)

    def is_terminal(self) -> bool:
        stream = self._open_stream()
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"

    def fileno(self) -> int:
        """Return the descriptor, by which tqdm asks the terminal for its width."""
        stream = self._open_stream()
        return -1 if stream is None else stream.fileno()

    def write(self, text: str) -> None:
        stream = self._open_stream()
        if stream is not None:
            with suppress(OSError):
                stream.write(text)

    def flush(self) -> None:
        stream = self._open_stream()
        if stream is not None:
            with suppress(OSError):
                stream.flush()

    def _open_stream(self) -> TextIO | None:
        return None if self._stream is None or self._stream.closed else self._stream


def _hours_minutes_seconds(duration_s: float) -> str:
    """Return a duration as h:mm:ss, the hours without a limit.

    >>> _hours_minutes_seconds(100 * 3600 + 61.4)
    '100:01:01'
    """
    minutes, seconds = divmod(round(duration_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
