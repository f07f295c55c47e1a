"""Saves while training goes on: the loop is held for what it takes to copy small things, a thread does the rest.

    saver = BackgroundSaver(commit, lambda: tensors_that_steps_change(state.networks.values(), optimizers))
    with fence_before_updates(saver.fence, optimizers):
        saver.prepare()                              # after the first step: then the optimizers have their moments
        outcome = saver.begin(*take_snapshot(...))   # the outcome of the save before, None for the first
        ...                                          # forward, backward
        optimizer.step()                             # waits until the parameters are copied
        outcome = saver.collect()                    # None while the save is under way
    outcome = saver.close()

`commit(payload, record, control)` makes the save durable and returns what came of it; it calls `control.check` often,
which raises SaveCancelledError once `cancel` was called, and may leave out what can wait where the loop waits for it
(`training/saving/save_control.py`). What the disk refuses is an outcome. What it raises is a bug, and
comes out of the next call of the loop's thread as SavingFailedError.

Invariants, each with its test in tests/test_background_saving.py:

1. The file has the bytes that a save at `begin` would have written, whatever training does meanwhile
   (`test_files_written_while_training_goes_on_are_those_of_a_direct_save`).
2. Nothing changes parameters before they are copied (`test_an_optimizer_step_waits_for_the_copies`).
3. One save is in flight; each outcome and each error is handed over once
   (`test_the_next_save_waits_and_hands_over_the_outcome_of_the_one_before`,
   `test_an_error_of_the_writer_surfaces_with_its_cause_and_the_saver_works_again`).
4. An interpreter that ends without `close` finishes the save in flight and no more
   (`test_a_program_that_ends_with_a_save_in_flight_finishes_it`).

Forking while the writer's thread runs, as a data loader does, is safe (`test_workers_can_be_forked_during_a_save`).
A child has the forking thread only, so it must need no lock that the writer may hold at that moment. Those are the
interpreter's and malloc's, which fork handles; the lock of the temporary file's buffer, which no child uses; that of
standard output if `commit` printed, so it must not: its outcome is said by the loop's thread. No buffered byte is
written twice: the child's copy of the file object belongs to a frame that never ends there, and workers leave by
os._exit. What a child does inherit is the descriptor: the room of a file that is deleted later comes free when that
child ends. The kept buffers are not passed on (`kept_buffers`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from training.checkpoints.record import CheckpointRecord
from training.saving.background_copies import BackgroundCopies
from training.saving.dead_disk import DeadDiskError, Patience
from training.saving.kept_buffers import KeptBuffers, NoRoomError, bytes_to_keep, detach
from training.saving.save_control import SaveControl
from utils.console import say
from utils.interruption import StopRequest
from utils.waiting import NEVER, StopAskedError, wait_until_done

Outcome = TypeVar("Outcome")
Outcome_co = TypeVar("Outcome_co", covariant=True)
Commit = Callable[[dict[str, Any], CheckpointRecord, SaveControl], Outcome]


class SavingFailedError(RuntimeError):
    """A bug showed while a checkpoint was saved in the background; the cause is the error itself."""


@dataclass
class BlockedTime:
    """How long a saver held up the thread that called it, in seconds: in total, and for the latest save alone."""

    total_seconds: float = 0.0
    last_seconds: float = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the block."""
        before = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - before
            self.total_seconds += seconds
            self.last_seconds += seconds


class Saver(Protocol[Outcome_co]):
    """Saves states one after the other; every method is called by the thread that trains."""

    blocked: BlockedTime

    def prepare(self) -> None:
        """Get ready for the first save; may be called again."""

    def begin(self, payload: dict[str, Any], record: CheckpointRecord) -> Outcome_co | None:
        """Save the state as it is now, and return the outcome of the save before, if nobody has it yet."""

    def fence(self) -> None:
        """Return when parameters and optimizer state may change."""

    def collect(self) -> Outcome_co | None:
        """Return the outcome of a save that has ended, once; None if there is none. Does not wait."""

    def wait(self) -> Outcome_co | None:
        """Return the outcome of the save in flight when it has ended; None if there is none."""

    def close(self) -> Outcome_co | None:
        """Wait as `wait` does; nothing can be saved afterwards."""

    def cancel(self) -> None:
        """End the save in flight as soon as it can be, whatever comes of it; nothing can be saved afterwards."""


class DirectSaver(Generic[Outcome]):
    """Saves the live state within `begin`, as --sync_save asks for; the outcome is there when it returns."""

    def __init__(self, commit: Commit[Outcome]) -> None:
        self.blocked = BlockedTime()
        self._commit = commit
        self._outcome: Outcome | None = None

    def prepare(self) -> None:
        """Nothing to do."""

    def begin(self, payload: dict[str, Any], record: CheckpointRecord) -> Outcome | None:
        """Save; what `commit` raises comes out of here. `collect` has the outcome."""
        earlier = self.collect()
        self.blocked.last_seconds = 0.0
        with self.blocked.measured():
            self._outcome = self._commit(payload, record, SaveControl())
        return earlier

    def fence(self) -> None:
        """Nothing to wait for."""

    def collect(self) -> Outcome | None:
        """Return the outcome of the latest save, once."""
        outcome, self._outcome = self._outcome, None
        return outcome

    wait = close = collect

    def cancel(self) -> None:
        """Nothing is ever in flight."""


class BackgroundSaver(Generic[Outcome]):
    """Saves in one thread of its own, from a copy of the state that is made while the loop goes on.

    Every wait for a save raises DeadDiskError where `stop` is SIGTERM and the disk takes nothing.

    `deferred` returns the tensors that nothing but a fenced update changes; all others of a payload are copied in
    `begin`. Where there is no memory for the copy it says so once, and saves within `begin`. Pass `pinned` for a state
    on a GPU.
    """

    def __init__(
        self,
        commit: Commit[Outcome],
        deferred: Callable[[], Iterable[Tensor]],
        pinned: bool = False,
        stop: StopRequest = NEVER,
    ) -> None:
        self.blocked = BlockedTime()
        self._commit = commit
        self._deferred = deferred
        self._stop = stop
        self._buffers = KeptBuffers(pinned)
        self._writer = ThreadPoolExecutor(1, "saving")
        self._control = SaveControl()
        self._touched_enough = threading.Event()
        self._copies: BackgroundCopies | None = None
        self._saving: Future[Outcome] | None = None
        self._has_said = False

    def prepare(self) -> None:
        """Reserve the buffers, and touch them in the background; call it once the optimizers have their state."""
        if self._saving is not None:
            return
        self._control.keeps_payload = False
        if self._reserve(bytes_to_keep(self._deferred())):
            self._touched_enough.set()
            self._touched_enough = threading.Event()
            self._writer.submit(self._buffers.touch, self._touched_enough.is_set)

    def begin(self, payload: dict[str, Any], record: CheckpointRecord) -> Outcome | None:
        """Take the state as it is now and save it in the background; waits for the save before, if there is one.

        Raises SavingFailedError, without a new save, where the one before met a bug.
        """
        self.blocked.last_seconds = 0.0
        with self.blocked.measured():
            earlier = self._outcome()
            self._control.keeps_payload = False
            deferred = list(self._deferred())
            if self._reserve(bytes_to_keep(deferred)):
                copy, pending = detach(payload, deferred, self._buffers)
                self._touched_enough.set()
                self._copies = BackgroundCopies(pending)
                self._control = SaveControl(keeps_payload=True)
                self._saving = self._writer.submit(self._save, copy, record, self._copies, self._control)
            else:
                self._saving = Future()
                self._saving.set_result(self._commit(payload, record, SaveControl()))
        return earlier

    def fence(self) -> None:
        """Return when parameters and optimizer state may change: their copies are made, or were given up."""
        if self._copies is not None:
            with self.blocked.measured():
                self._copies.fence()

    def collect(self) -> Outcome | None:
        """Return the outcome of a save that has ended, once, without waiting; raises SavingFailedError for a bug."""
        return self._outcome() if self._saving is not None and self._saving.done() else None

    def wait(self) -> Outcome | None:
        """Return the outcome of the save in flight when it has ended; raises SavingFailedError for a bug."""
        with self.blocked.measured():
            return self._outcome()

    def close(self) -> Outcome | None:
        """Wait, give the memory back and return the last outcome; raises SavingFailedError for a bug."""
        self._touched_enough.set()
        try:
            return self.wait()
        finally:
            self._writer.shutdown()
            self._buffers = KeptBuffers()

    def cancel(self) -> None:
        """Stop the save in flight at its next write and remove its temporary; a sync already begun must end first."""
        self._control.cancel()
        self._touched_enough.set()
        self._writer.shutdown(cancel_futures=True)
        self._saving = self._copies = None
        self._buffers = KeptBuffers()

    def _save(
        self, payload: dict[str, Any], record: CheckpointRecord, copies: BackgroundCopies, control: SaveControl
    ) -> Outcome:
        copies.make(control.check)
        return self._commit(payload, record, control)

    def _outcome(self) -> Outcome | None:
        if self._saving is None:
            return None
        self._control.hurry()
        patience = Patience(self._stop, self._control)
        try:
            wait_until_done(
                self._saving, lambda: "the disk to take a checkpoint; Ctrl-C twice gives that one up", patience
            )
        except StopAskedError:
            raise DeadDiskError from None
        error = self._saving.exception()  # a Ctrl-C before this line leaves the save to `cancel`
        saving, self._saving = self._saving, None
        if error is not None:
            what = f"{type(error).__name__}: {error}"
            raise SavingFailedError(f"a checkpoint could not be saved because of a bug ({what})") from error
        return saving.result()

    def _reserve(self, num_bytes: int) -> bool:
        try:
            self._buffers.reserve(num_bytes)
        except NoRoomError as error:
            if not self._has_said:
                say(f"[WARNING] There is no memory for a copy of the state ({error}): training waits for each save.")
            self._has_said = True
            return False
        return True


def tensors_that_steps_change(networks: Iterable[nn.Module], optimizers: Iterable[Optimizer]) -> Iterator[Tensor]:
    """Yield the parameters of networks and the state of optimizers: what only an optimizer step changes.

    Buffers of networks are not among them, since a forward pass can change them (batch norm does).
    """
    for network in networks:
        yield from network.parameters()
    for optimizer in optimizers:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


def fence_before_updates(fence: Callable[[], None], optimizers: Iterable[Optimizer]) -> ExitStack:
    """Call a saver's `fence` before every step of these optimizers, until the stack returned is left or closed.

    Whatever else changes parameters or optimizer state, such as loading weights, must call it too.
    """

    def wait(*_: object) -> None:
        fence()

    hooks = ExitStack()
    for optimizer in optimizers:
        hooks.callback(optimizer.register_step_pre_hook(wait).remove)
    return hooks
