"""Several processes of one run: what they say to each other, and the group of torch.distributed that adds gradients.

    with joined(launch, "cpu") as ranks:  # Alone where there is one process
        plan = ranks.broadcast(make_plan)

What is decided goes as messages (`utils/peers.py`), which end with a clear error when a process dies; only tensors go
through the group. An operation of the group that is under way then is cut short, so that nobody waits for the dead.
torch is imported when several processes meet, and not before.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from utils.console import speak
from utils.ending import stop_of
from utils.errors import EXIT_FAILURE, EXIT_USAGE, UserError
from utils.interruption import StopRequest
from utils.launch import Launch
from utils.meeting import began_at, meet, not_reached, wait_for_first
from utils.peers import Peers, PeersStoppedError
from utils.ranks import Alone, Failure, Ranks

if TYPE_CHECKING:
    import torch.distributed as dist

MEET_WITHIN_S = 300.0
"""Machines of a cluster may read Python and torch from a slow disk at their first start."""
TELL_WITHIN_S = 20.0
_TENSORS_WITHIN = timedelta(hours=12)  # one process may wait for audio that long; a dead one is noticed otherwise
_LOST_IS_KNOWN_WITHIN_S = 5.0

Value = TypeVar("Value")


@contextmanager
def joined(launch: Launch, device: str = "cpu", within_s: float = MEET_WITHIN_S) -> Iterator[Ranks]:
    """Yield the processes of the run, once all have met; a single one is `Alone`, and needs no torch.

    `device` is what --device says; of several GPUs each process takes the one of its number on its machine, which is
    the current one of torch then. Whatever leaves the block by an exception ends all of them, with one sentence from
    the lowest that lives.
    """
    if launch.count == 1:
        yield Alone()
        return
    ranks = Processes.meet(launch, take_gpu(device, launch), within_s)
    try:
        yield ranks
    except BaseException as error:
        if isinstance(error, UserError):
            ranks.fail(str(error), error.exit_code)
        elif isinstance(error, KeyboardInterrupt):
            stopped_by = stop_of(error)
            ranks.fail(f"stopped at once by {stopped_by.name}", 128 + stopped_by)
        else:
            ranks.fail(f"{type(error).__name__}: {error}", EXIT_FAILURE)
        if ranks.saves:
            speak()
        raise
    finally:
        ranks.close()


def take_gpu(device: str, launch: Launch) -> str:
    """Make the GPU of this process torch's current one, and return the type of device: cuda, or cpu for none.

    Raises UserError where --device names one GPU for all, or a machine has fewer than processes.
    """
    if device == "cpu":
        return "cpu"
    import torch  # noqa: PLC0415  (2 s)

    if ":" in device:
        raise UserError(
            f"--device {device} names one GPU, and each of {launch.count} processes needs its own: pass --device cuda",
            EXIT_USAGE,
        )
    found = torch.cuda.device_count()
    if not found and device == "auto":
        return "cpu"
    if 1 < found < launch.local_count or not found:  # one only: a scheduler shows each process its own
        raise UserError(
            f"{launch.local_count} processes on this machine need a GPU each, and torch sees {found}: start as many "
            "processes as GPUs, or pass --device cpu"
        )
    torch.cuda.set_device(launch.local_index % found)
    return "cuda"


def is_cut_off() -> bool:
    """Whether the others of a group failed, for whom torch would wait at the end of the interpreter."""
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


def tell_first(launch: Launch, error: UserError) -> None:
    """Tell the first process of what ends this one, if it is there: where it met the same, it is not any more."""
    with suppress(UserError):
        peers, _, _ = _met(launch, TELL_WITHIN_S)
        peers.fail(str(error), error.exit_code)
        peers.close()


@contextmanager
def _failures_told(peers: Peers) -> Iterator[None]:
    """Say what befell another process, where that is why the processes do not come together; raises UserError."""
    try:
        yield
    except RuntimeError as error:
        if peers.wait_for_failure(_LOST_IS_KNOWN_WITHIN_S) and peers.failure is not None:
            raise UserError(peers.failure.text, peers.failure.exit_code) from error
        raise


class Processes:
    """One of several processes of a run; `Ranks` says what each method promises.

    `group` is the process group of torch.distributed: gloo for tensors in memory, NCCL for those on GPUs. Every
    method raises PeersStoppedError once a process failed.
    """

    def __init__(self, peers: Peers, count: int, group: dist.ProcessGroup, own_sockets: dict[int, str]) -> None:
        self.index, self.count = peers.index, count
        self.group = group
        self._peers = peers
        self._own_sockets = own_sockets
        peers.call_on_failure(self._cut_group)

    @classmethod
    def meet(cls, launch: Launch, device_type: str, within_s: float = MEET_WITHIN_S) -> Processes:
        """Return this process among the others, once all are there; raises UserError where they do not come."""
        import torch.distributed as dist  # noqa: PLC0415  (2 s)
        from torch._C._distributed_c10d import PrefixStore  # noqa: PLC0415

        peers, secret, store = _met(launch, within_s)
        try:
            peers.exchange(None)  # who takes no part says so here, and no group waits for it
            before = _sockets()
            with _failures_told(peers):
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
                    store=PrefixStore(secret, store),
                    rank=launch.index,
                    world_size=launch.count,
                    timeout=_TENSORS_WITHIN,
                )
                peers.exchange(None)  # whoever left before all have the group would end it with an error of gloo
        except (dist.DistStoreError, dist.DistNetworkError) as error:
            raise not_reached(launch, error) from error
        except PeersStoppedError:
            peers.close()
            raise
        found = {number: name for number, name in _sockets().items() if before.get(number) != name}
        group = dist.group.WORLD
        assert group is not None
        ranks = cls(peers, launch.count, group, found)
        if device_type == "cuda":
            _refuse_shared_gpus(ranks.gather(_own_gpu()))
        return ranks

    @property
    def is_first(self) -> bool:
        """Whether this is the process with index 0."""
        return self.index == 0

    @property
    def failure(self) -> Failure | None:
        """Why the processes cannot go on together; None while they can."""
        return self._peers.failure

    @property
    def saves(self) -> bool:
        """Whether this is the lowest process that lives."""
        return self._peers.saver == self.index

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any of them."""
        return any(self.gather(flag))

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all, in their order."""
        return self._peers.exchange(value)

    def sum(self, value: float) -> float:
        """Return the sum, added in their order."""
        return sum(self.gather(value))

    def broadcast(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returned to the first; a UserError that it raised is raised by all."""
        if not self.is_first:
            is_error, found = self._peers.take_from(0)
            if is_error:
                raise found
            value: Value = found
            return value
        try:
            value = make()
        except UserError as error:
            self._peers.hand_out((True, error))
            raise
        self._peers.hand_out((False, value))
        return value

    def watch(self, stop: StopRequest) -> None:
        """Have `stop` requested once the processes cannot go on together, which ends whatever waits for it."""
        self._peers.call_on_failure(stop.overtake)

    def fail(self, text: str, exit_code: int = EXIT_FAILURE) -> None:
        """Tell the others that this process cannot go on, or was stopped, unless one of them said so before."""
        self._peers.fail(text, exit_code)

    def is_failure(self) -> bool:
        """Return whether a process failed, when an error of the group is the first that was seen of it."""
        return self._peers.wait_for_failure(_LOST_IS_KNOWN_WITHIN_S)

    def conclude(self, make: Callable[[], Value]) -> Value:
        """Return what `make` returned to the lowest process that lives, after a failure; it alone calls it."""
        while not self.saves:
            ended = self._peers.wait_for_end()
            if ended is not None:
                value: Value = ended[0]
                return value
        if not self.is_first:
            speak()
        value = make()
        self._peers.end(value)
        return value

    def fence_first(self) -> None:
        """See to it that the first process, which does not answer, never writes again: on this machine it is ended.

        One on another machine cannot be; a lock that it holds is respected.
        """
        first, own = self._peers.member(0), self._peers.member(self.index)
        if first.host == own.host and first.began and began_at(first.pid) == first.began:
            with suppress(OSError):
                os.kill(first.pid, signal.SIGKILL)

    def close(self) -> None:
        """Take leave of the others."""
        import torch.distributed as dist  # noqa: PLC0415

        self._peers.close()
        if self.failure is None:
            dist.destroy_process_group()

    def _cut_group(self) -> None:
        """End what the group is doing: gloo waits for hours for a process that hangs, and has no way to give up."""
        for number, name in _sockets().items():
            if self._own_sockets.get(number) != name:
                continue
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as one:
                if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # gloo dies of an end of that
                    one.shutdown(socket.SHUT_RDWR)


def _met(launch: Launch, within_s: float) -> tuple[Peers, str, Any]:
    """Return the other processes once all are there, the secret of the run, and the store that they met in."""
    import torch.distributed as dist  # noqa: PLC0415  (2 s)
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # noqa: PLC0415

    if not launch.is_first and not launch.has_store:
        wait_for_first(launch, within_s)
    try:
        store: Any = TCPStore(
            launch.address,
            launch.port,
            is_master=launch.is_first and not launch.has_store,
            timeout=timedelta(seconds=within_s),
            wait_for_workers=False,
        )
        if launch.has_store:
            store = PrefixStore(f"bonafide/{launch.attempt}", store)
        return *meet(launch, store, within_s), store
    except (dist.DistStoreError, dist.DistNetworkError) as error:
        raise not_reached(launch, error) from error


def _own_gpu() -> str:
    import torch  # noqa: PLC0415

    return f"{socket.gethostname()}, {torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def _refuse_shared_gpus(gpus: list[str]) -> None:
    for index, gpu in enumerate(gpus):
        if gpu in gpus[:index]:
            raise UserError(
                f"processes {gpus.index(gpu)} and {index} would share one GPU ({gpu}): start as many processes as GPUs"
            )


def _sockets() -> dict[int, str]:
    """Return the sockets of this process by their descriptors."""
    found = {}
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
            if name.startswith("socket:"):
                found[int(number)] = name
    return found
