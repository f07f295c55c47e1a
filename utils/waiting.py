"""Waits that a stop ends and that say what they wait for; the work itself goes on in threads that hold up nothing.

    helpers = Helpers(1, "reading")
    waveform = wait_for(helpers.do(lambda _: read_waveform(path)), lambda: f"data: reading {path}", stop)

A signal interrupts a blocking read of the main thread only when the disk or file server answers, which may be never.
So whatever may take for ever is done by a helper, and the main thread waits where a signal reaches it. A helper whose
work never ends is left behind: it is a daemon, which no exit waits for.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

from utils.interruption import StopRequest

FIRST_TOLD_S = 30.0
"""After so many seconds a wait says what it waits for; again after twice as many, and so on, at least once an hour."""
_LOOK_EVERY_S = 0.1
_HOUR_S = 3600.0

NEVER = StopRequest()
"""For waits that no request ends; Ctrl-C does, where it raises KeyboardInterrupt."""

Result = TypeVar("Result")


class StopAskedError(Exception):
    """A wait was ended by the request to stop; what was waited for is given up."""


class Helpers:
    """Daemon threads that take work in the order in which it is given to them."""

    def __init__(self, num_threads: int, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[int], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._help, args=(number,), name=f"{name} {number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def do(self, work: Callable[[int], Result]) -> Future[Result]:
        """Have `work` called with the number of the helper that does it, from 0; what it raises is in the result."""
        result: Future[Result] = Future()

        def carry_out(number: int) -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                found = work(number)
            except BaseException as error:  # noqa: BLE001  (raised where the result is asked for)
                result.set_exception(error)
            else:
                result.set_result(found)

        self._work.put(carry_out)
        return result

    def close(self) -> None:
        """Let each helper end after what it is doing now; returns at once."""
        with suppress(queue.Empty):
            while True:
                self._work.get_nowait()
        for _ in self._threads:
            self._work.put(None)

    def _help(self, number: int) -> None:
        while work := self._work.get():
            work(number)
            del work  # and what it holds, until there is more


def _nothing() -> None:
    pass


def wait_for(
    result: Future[Result],
    awaited: Callable[[], str],
    stop: StopRequest = NEVER,
    meanwhile: Callable[[], object] = _nothing,
) -> Result:
    """Return the result, or raise what the work raised, when it is there.

    After 30 s, and then rarely, what `awaited` returns is told on stderr; `meanwhile` is called ten times a second.
    Raises StopAskedError as soon as `stop` is requested and the result is not there.
    """
    wait_until_done(result, awaited, stop, meanwhile)
    return result.result()


def wait_until_done(
    result: Future[Any],
    awaited: Callable[[], str],
    stop: StopRequest = NEVER,
    meanwhile: Callable[[], object] = _nothing,
) -> None:
    """Wait as `wait_for` does, and leave the result to the caller."""
    with telling(awaited) as tell:
        while not result.done():
            if stop.requested:
                result.cancel()
                raise StopAskedError
            wait([result], _LOOK_EVERY_S)
            tell()
            meanwhile()


def each_awaited(items: Iterable[Result], awaited: Callable[[], str], stop: StopRequest = NEVER) -> Iterator[Result]:
    """Yield the items, each of which a helper gets from the iterable while this thread waits for it."""
    helpers, coming = Helpers(1, "waiting"), iter(items)
    try:
        while found := wait_for(helpers.do(lambda _: list(islice(coming, 1))), awaited, stop):
            yield from found
    finally:
        helpers.close()


@contextmanager
def telling(awaited: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Yield what is to be called while something is waited for: it tells so after 30 s, and then rarely."""
    began = time.monotonic()
    tell_after_s, has_told = FIRST_TOLD_S, False

    def tell() -> None:
        nonlocal tell_after_s, has_told
        seconds = time.monotonic() - began
        if seconds >= tell_after_s:
            has_told = True
            tell_after_s += min(tell_after_s, _HOUR_S)
            say_aside(f"[NOTE] Waiting for {seconds:.0f} s for {awaited()}")

    yield tell
    if has_told:
        say_aside(f"[NOTE] That took {time.monotonic() - began:.0f} s; going on.")


def say_aside(text: str) -> None:
    """Print a line on stderr, where progress is shown, on a line of its own; a stderr that is gone loses it."""
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):
        start = "\n" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{start}{text}\n")
        sys.stderr.flush()
