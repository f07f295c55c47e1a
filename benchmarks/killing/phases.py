"""Where a forked process is: it says so in shared memory, and has itself ended at a drawn moment of a drawn phase.

The program is not changed for this: in the fork, the functions that a phase consists of are wrapped by ones that note
when they are entered and left. The signal comes from a timer of the kernel, so that it falls where it was drawn to
fall also on a busy machine, on which another process would wake up too late.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Phase:
    """A name, and the functions that run in it, as `module:name` where they are looked up.

    Only calls whose arguments `count` are part of it. One that is `once` comes at the first start of a command only.
    """

    name: str
    calls: tuple[str, ...] = ()
    count: Callable[..., bool] = lambda *_: True
    once: bool = False


def _has_work(first: Any, *_: Any) -> bool:
    return bool(first)


def _is_of_generator(_task: Any, _state: Any, _batch: Any, step: Any) -> bool:
    return bool(step.phase == "generator_optimizer")


STARTING, BETWEEN, ENDING = Phase("starting, elsewhere"), Phase("training, elsewhere"), Phase("ending, elsewhere")
STEP = Phase("a step", ("training.loop.trainer:take_step",))
PHASES = (
    STARTING,
    Phase("looking and planning", ("training.commands.train:collect_facts",)),
    Phase("opening the corpus", ("training.loop.session:open_data",)),
    Phase("loading the state", ("training.loop.session:build", "training.loop.session:starting_state")),
    Phase("making the folder ready", ("training.loop.saving:prepare_folder",)),
    Phase("moving aside", ("training.runs.moving_aside:move_durably",), _has_work, once=True),
    Phase("bringing along", ("training.saving.store:CheckpointStore.bring_along",), once=True),
    Phase("making up what was undone", ("training.loop.finishing:finish",)),
    BETWEEN,
    STEP,
    Phase("between the two updates", ("training.tasks.vocoder:VocoderTask.loss",), _is_of_generator),
    Phase("validation", ("training.loop.trainer:Trainer._validate",)),
    Phase("last pass of SWA", ("training.tasks.swa:StatisticsAnew.take",)),
    Phase("copying the state", ("training.loop.saves:take_snapshot",)),
    Phase("writing a checkpoint", ("training.saving.store:CheckpointStore.save",)),
    Phase(
        "naming best and last",
        ("training.saving.store:CheckpointStore.mark_best", "training.saving.store:CheckpointStore.mark_last"),
    ),
    Phase("retention", ("training.saving.commit:prune",), _has_work),
    Phase("compression", ("training.saving.commit:compress_file",)),
    Phase("reports", ("training.reports.reporting:Reports.tell",)),
    Phase("heatmaps", ("training.tasks.heatmaps:write_attention_heatmaps",)),
    ENDING,
    Phase("closing the reports", ("training.reports.reporting:Reports.end",)),
    Phase("scoring", ("training.evaluation.scoring:_score_rest",)),
    Phase("writing scores", ("training.evaluation.scoring:write_finished",)),
    Phase("reading for an export", ("training.export.exporting:detector_in",)),
    Phase("writing an export", ("training.export.exporting:_make", "training.export.exporting:_opened")),
    Phase("checking an export", ("training.export.exporting:differences",)),
)
NAMES = tuple(phase.name for phase in PHASES)
_WHOLE_TRAINING = "training.loop.trainer:Trainer.train"
_MAIN, _OTHER, _DUE_S, _NUM_CELLS = 0, 1, 2, 3


@dataclass(frozen=True)
class Aim:
    """A moment: `seconds` after a phase is entered for the `occurrence`th time, counted from 1."""

    phase: str
    occurrence: int
    seconds: float


class Board:
    """What a fork says, in memory that it shares with the process that watches it."""

    def __init__(self) -> None:
        size = _NUM_CELLS + 2 * len(PHASES)
        self._cells = memoryview(mmap.mmap(-1, 8 * size)).cast("d")
        self._cells[_OTHER] = -1

    @property
    def where(self) -> str:
        """The phase that the process is in, or was in when it died: that of the thread that saves, if it has one."""
        other = int(self._cells[_OTHER])
        return NAMES[int(self._cells[_MAIN]) if other < 0 else other]

    @property
    def is_due(self) -> bool:
        """Whether the signal that was aimed was sent."""
        return 0 < self._cells[_DUE_S] <= time.monotonic()

    def lasted(self) -> dict[str, tuple[int, float]]:
        """Return how often each phase was entered that was, and how long it lasted each time on average, in seconds."""
        counts, seconds = (self._cells[_NUM_CELLS + part :: 2].tolist() for part in (0, 1))
        return {
            name: (int(number), total / number)
            for name, number, total in zip(NAMES, counts, seconds, strict=True)
            if number
        }

    def due_in(self, seconds: float) -> None:
        """Say when the signal comes."""
        self._cells[_DUE_S] = time.monotonic() + seconds

    def is_now(self, phase: Phase) -> None:
        """Say that the main thread is in a phase, until it is in another one."""
        self._cells[_MAIN] = NAMES.index(phase.name)

    @contextmanager
    def within(self, phase: Phase) -> Iterator[int]:
        """Say that this thread is in a phase while the block lasts, and yield how often it was entered by now."""
        number = NAMES.index(phase.name)
        thread = _MAIN if threading.current_thread() is threading.main_thread() else _OTHER
        before, began = self._cells[thread], time.monotonic()
        self._cells[thread] = number
        counted = _NUM_CELLS + 2 * number
        self._cells[counted] += 1
        try:
            yield int(self._cells[counted])
        finally:
            self._cells[counted + 1] += time.monotonic() - began
            self._cells[thread] = before


def import_phases() -> None:
    """Import what phases consist of, so that forks of this process need not."""
    for phase in PHASES:
        for name in phase.calls:
            import_module(name.partition(":")[0])


def tell_phases(board: Board, aims: tuple[Aim, ...], number: signal.Signals) -> None:
    """From now on tell in which phase this process is, and have it sent a signal at the first of these moments.

    Raises AttributeError where the program has no such function any more.
    """

    def entered(phase: Phase, occurrence: int) -> None:
        for aim in aims:
            if (aim.phase, aim.occurrence) == (phase.name, occurrence):
                board.due_in(aim.seconds)
                signal_after(aim.seconds, number)

    def told(phase: Phase, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if not phase.count(*arguments):
                return call(*arguments, **named)
            with board.within(phase) as occurrence:
                entered(phase, occurrence)
                return call(*arguments, **named)

        return wrapper

    def trains(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            board.is_now(BETWEEN)
            try:
                return call(*arguments, **named)
            finally:
                board.is_now(ENDING)

        return wrapper

    for phase in PHASES:
        for name in phase.calls:
            replace_call(name, functools.partial(told, phase))
    replace_call(_WHOLE_TRAINING, trains)
    entered(STARTING, 1)


def replace_call(name: str, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put another function in the place of `module:name`, made of the one that is there."""
    module, _, path = name.partition(":")
    *outer, last = path.split(".")
    owner = functools.reduce(getattr, outer, import_module(module))
    setattr(owner, last, wrapped(vars(owner)[last]))


class _Event(ctypes.Structure):
    """`struct sigevent` of sigevent(7): the signal that a timer sends to its process."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    )


class _Times(ctypes.Structure):
    """`struct itimerspec` of timer_settime(2): seconds and nanoseconds between expiries, none, and to the first one."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


def signal_after(seconds: float, number: signal.Signals) -> None:
    """Have the kernel send this process a signal after some seconds, whatever it does then; forks do not inherit that.

    By timer_create(2), since `signal.setitimer` cannot send SIGKILL.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    timer = ctypes.c_void_p()
    event = _Event(signal=number, notify=0)  # SIGEV_SIGNAL
    first_ns = max(1, round(seconds * 1e9))  # 0 would disarm it
    times = _Times(first_s=first_ns // 10**9, first_ns=first_ns % 10**9)
    made = libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer))
    if made or libc.timer_settime(timer, 0, ctypes.byref(times), None):
        raise OSError(ctypes.get_errno(), "no timer could be set")
