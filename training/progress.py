"""What a person sees while an epoch runs: a bar on a terminal, one plain line every few seconds anywhere else.

    with progress("epoch 3/100  train", total_batches=1587, first_batch=119) as shown:
        for batch in batches:
            shown.advance(utterances=16, loss=mean_loss)

    epoch 3/100  train  120/1587 batches  loss 0.1234  31.4 utt/s  0:07:12 left

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


@dataclass(frozen=True)
class Standing:
    """How far an epoch has come. Batches count from the epoch's start, utterances and seconds from this process's.

    `unit` is the word for batches, or for what else is gone through. `loss` and `eer_percent` are shown as they are
    given; None shows nothing.

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
    eer_percent: float | None = None
    unit: str = "batches"

    def line(self) -> str:
        """Return all of it as one line without its end."""
        return "  ".join([self.label, f"{self.batches}/{self.total_batches} {self.unit}", *self.measures()])

    def measures(self) -> list[str]:
        """Return loss, EER, rate and time left, without those that are not known."""
        texts = []
        if self.loss is not None:
            texts.append(f"loss {self.loss:.4f}")
        if self.eer_percent is not None:
            texts.append(f"EER {self.eer_percent:.2f} %")
        if self.elapsed_s > 0:
            texts.append(f"{self.utterances / self.elapsed_s:.1f} utt/s")
        left_s = self.left_s()
        if left_s is not None:
            texts.append(f"{_hours_minutes_seconds(left_s)} left")
        return texts

    def left_s(self) -> float | None:
        """Return the seconds that the other batches take at the rate so far; None before the first one is done."""
        done = self.batches - self.first_batch
        return None if done <= 0 else self.elapsed_s / done * (self.total_batches - self.batches)


class Progress:
    """The one thing a loop tells: that batches are done. `progress` makes it."""

    def __init__(self, standing: Standing, display: _Display, clock: Callable[[], float]) -> None:
        self._standing = standing
        self._display = display
        self._clock = clock
        self._started_s = clock()

    def advance(
        self, utterances: int, loss: float | None = None, eer_percent: float | None = None, batches: int = 1
    ) -> None:
        """Count batches of so many utterances in all; shows loss and EER (percent), never raises for the stream."""
        self._standing = replace(
            self._standing,
            batches=self._standing.batches + batches,
            utterances=self._standing.utterances + utterances,
            elapsed_s=self._clock() - self._started_s,
            loss=loss,
            eer_percent=eer_percent,
        )
        self._display.show(self._standing)


@contextmanager
def progress(
    label: str,
    total_batches: int,
    first_batch: int = 0,
    *,
    unit: str = "batches",
    stream: TextIO | None = None,
    line_every_s: float = LINE_EVERY_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show how an epoch of `total_batches` goes on, `first_batch` of them done by an earlier process.

    `stream` None is stderr. Without a terminal a line comes at most every `line_every_s` seconds of `clock`, and the
    first one after as long.
    """
    output = _Output(sys.stderr if stream is None else stream)
    standing = Standing(label, total_batches, first_batch, batches=first_batch, unit=unit)
    display = _Bar(standing, output) if output.is_terminal() else _Lines(output, line_every_s)
    try:
        yield Progress(standing, display, clock)
    finally:
        display.close()


class _Display(Protocol):
    def show(self, standing: Standing) -> None: ...

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
