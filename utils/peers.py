"""Messages between the processes of one run, over a socket between each two of them, and who of them still lives.

A thread reads what comes, and sends a beat every second. The death of a process closes its sockets, so the others know
at once; one that gives no beat for 20 s, or whose machine is gone, counts as dead too. Whoever waits for a message is
then told: `PeersStoppedError`. Beats are counted and not timed, so that processes which were all stopped for a while
(Ctrl-Z) go on.

What comes is unpickled: the connections are those of `utils.meeting`, whose other ends know the secret of the run.
"""

from __future__ import annotations

import pickle
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError
from utils.ranks import Failure
from utils.waiting import telling

BEAT_EVERY_S = 1.0
DEAD_AFTER_BEATS = 20
_HEADER = struct.Struct("!BQ")
_BEAT, _VALUE, _FAILED, _ENDED, _LEFT = range(5)
_AT_A_TIME = 1 << 20
_LOOK_EVERY_S = 0.5  # a signal's handler runs at once; this is for notes about a long wait


class PeersStoppedError(UserError):
    """The processes of the run cannot go on together; the message says which one failed, and how."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text, failure.exit_code)
        self.failure = failure


@dataclass(frozen=True)
class Member:
    """Who a process is: `name` for people, its machine, its number there, and when it began, as Linux counts that."""

    name: str
    host: str
    pid: int
    began: int


class _Peer:
    def __init__(self, index: int, member: Member, connection: socket.socket) -> None:
        self.index, self.member, self.connection = index, member, connection
        self.values: deque[Any] = deque()
        self.received = bytearray()
        self.unsent: deque[memoryview] = deque()
        self.silent_beats = 0
        self.is_lost = self.has_left = False
        self.ended: tuple[Any] | None = None

    @property
    def is_open(self) -> bool:
        return not (self.is_lost or self.has_left)


class Peers:
    """The other processes of a run, each connected with this one; made by `utils.meeting.meet`.

    Values arrive in the order in which they were sent; every process calls `exchange` and `broadcast` in the same
    order, so no message needs a name.
    """

    def __init__(self, index: int, members: Mapping[int, Member], connections: Mapping[int, socket.socket]) -> None:
        self.index = index
        self.failure: Failure | None = None
        self._own = members[index]
        self._peers = {other: _Peer(other, members[other], connection) for other, connection in connections.items()}
        self._changed = threading.Condition()
        self._on_failure: list[Callable[[], None]] = []
        self._selector = selectors.DefaultSelector()
        self._wake, woken = socket.socketpair()
        for end in (self._wake, woken):
            end.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ)
        for peer in self._peers.values():
            peer.connection.setblocking(False)
            peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        self._closing = False
        self._watch = threading.Thread(
            target=self._run, args=(woken,), name="watching the other processes", daemon=True
        )
        self._watch.start()

    @property
    def saver(self) -> int:
        """The lowest process that lives, as far as this one knows."""
        return min([self.index, *(peer.index for peer in self._peers.values() if not peer.is_lost)])

    def member(self, index: int) -> Member:
        """Return who a process is."""
        return self._own if index == self.index else self._peers[index].member

    def call_on_failure(self, action: Callable[[], None]) -> None:
        """Have `action` called, in another thread, once the processes cannot go on together."""
        with self._changed:
            self._on_failure.append(action)
            if self.failure is None:
                return
        action()

    def exchange(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order; raises PeersStoppedError."""
        self._send_to_all(_VALUE, value)
        return [
            value if index == self.index else self._value_of(self._peers[index])
            for index in sorted([self.index, *self._peers])
        ]

    def hand_out(self, value: Any) -> None:
        """Send a value to all others."""
        self._send_to_all(_VALUE, value)

    def take_from(self, index: int) -> Any:
        """Return the next value of a process, when it is there; raises PeersStoppedError."""
        return self._value_of(self._peers[index])

    def fail(self, text: str, exit_code: int) -> None:
        """Tell the others that this process cannot go on, unless one of them said so before."""
        told = f"{self._own.name}: {text}"
        self._tell_failure(Failure(self.index, told, exit_code))

    def wait_for_failure(self, within_s: float) -> bool:
        """Return whether a process failed, as soon as that is known."""
        with self._changed:
            return self._changed.wait_for(lambda: self.failure is not None, within_s)

    def end(self, value: Any) -> None:
        """Tell the others, as the one that saves after a failure, how the run ended."""
        self._send_to_all(_ENDED, value)

    def wait_for_end(self) -> tuple[Any] | None:
        """Return how the run ended, in a tuple, as the one that saves says; None where that is this process now.

        Raises PeersStoppedError where the one that saves has ended without a word.
        """
        with telling(lambda: f"{self.member(self.saver).name} to save the state") as tell, self._changed:
            while self.saver != self.index:
                peer = self._peers[self.saver]
                if peer.ended:
                    return peer.ended
                if peer.has_left:
                    raise self._stopped()
                self._changed.wait(_LOOK_EVERY_S)
                tell()
        return None

    def close(self) -> None:
        """Take leave of the others, once they have taken what was sent; they do not miss this process then."""
        self._send_to_all(_LEFT, None)
        with self._changed:
            self._closing = True
        self._poke()
        self._watch.join(BEAT_EVERY_S)

    def _value_of(self, peer: _Peer) -> Any:
        with telling(lambda: peer.member.name) as tell, self._changed:
            while not peer.values:
                if peer.has_left:
                    self._tell_failure(Failure(peer.index, f"{peer.member.name} has ended", is_lost=True))
                if self.failure is not None:
                    raise self._stopped()
                self._changed.wait(_LOOK_EVERY_S)
                tell()
            return peer.values.popleft()

    def _stopped(self) -> PeersStoppedError:
        assert self.failure is not None
        return PeersStoppedError(self.failure)

    def _send_to_all(self, kind: int, value: Any) -> None:
        content = b"" if kind in (_BEAT, _LEFT) else pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        frame = _HEADER.pack(kind, len(content)) + content
        with self._changed:
            for peer in self._peers.values():
                if peer.is_open:
                    peer.unsent.append(memoryview(frame))
                    self._send(peer)
        self._poke()

    def _send(self, peer: _Peer) -> None:
        """Send what the system takes now; the thread sends the rest. To be called with the condition held."""
        try:
            while peer.unsent:
                sent = peer.connection.send(peer.unsent[0])
                if sent < len(peer.unsent[0]):
                    peer.unsent[0] = peer.unsent[0][sent:]
                else:
                    peer.unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:
            peer.unsent.clear()  # reading tells that it is gone

    def _poke(self) -> None:
        if any(peer.unsent for peer in self._peers.values()) or self._closing:
            with suppress(OSError):  # full: it is woken anyway
                self._wake.send(b"x")

    # What follows runs in the thread.

    def _run(self, woken: socket.socket) -> None:
        try:
            self._watch_peers(woken)
        except BaseException as error:  # the main thread would wait for ever
            what = f"{self._own.name} does not hear the others any more ({type(error).__name__}: {error})"
            with self._changed:
                for peer in self._peers.values():
                    peer.has_left = True  # as far as this one will ever hear
                    peer.connection.close()  # which tells them
            self._take_failure(Failure(self.index, what))
            raise

    def _watch_peers(self, woken: socket.socket) -> None:
        next_beat = time.monotonic()
        while not self._may_end():
            with self._changed:
                for peer in self._peers.values():
                    if peer.is_open:
                        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.unsent else 0)
                        self._selector.modify(peer.connection, events, peer)
            for key, _ in self._selector.select(max(0.0, min(BEAT_EVERY_S, next_beat - time.monotonic()))):
                if key.data is None:
                    with suppress(BlockingIOError):
                        woken.recv(_AT_A_TIME)
                    continue
                with self._changed:
                    self._send(key.data)
                self._receive(key.data)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_EVERY_S
                self._beat()

    def _may_end(self) -> bool:
        with self._changed:
            return self._closing and not any(peer.unsent for peer in self._peers.values() if peer.is_open)

    def _beat(self) -> None:
        """Count a beat of silence for each, which its own beats make up for, and give one."""
        silent = []
        with self._changed:
            for peer in self._peers.values():
                if peer.is_open:
                    peer.silent_beats += 1
                    silent += [peer] if peer.silent_beats > DEAD_AFTER_BEATS else []
        for peer in silent:
            self._lose(peer, f"does not answer for {DEAD_AFTER_BEATS * BEAT_EVERY_S:.0f} s")
        self._send_to_all(_BEAT, None)

    def _receive(self, peer: _Peer) -> None:
        if not peer.is_open:
            return
        try:
            content = peer.connection.recv(_AT_A_TIME)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        if not content:
            self._lose(peer, "was killed, or its machine is gone")
            return
        peer.silent_beats = 0
        peer.received += content
        while len(peer.received) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(peer.received)
            end = _HEADER.size + length
            if len(peer.received) < end:
                return
            value = pickle.loads(memoryview(peer.received)[_HEADER.size : end]) if length else None
            del peer.received[:end]
            self._take(peer, kind, value)

    def _take(self, peer: _Peer, kind: int, value: Any) -> None:
        if kind == _FAILED:
            self._take_failure(value)
            return
        with self._changed:
            if kind == _VALUE:
                peer.values.append(value)
            elif kind == _ENDED:
                peer.ended = (value,)
            elif kind == _LEFT:
                peer.has_left = True
                self._selector.unregister(peer.connection)
            self._changed.notify_all()

    def _lose(self, peer: _Peer, how: str) -> None:
        with self._changed:
            peer.is_lost = True
            peer.unsent.clear()
            self._selector.unregister(peer.connection)
            peer.connection.close()
            self._changed.notify_all()
        self._tell_failure(Failure(peer.index, f"{peer.member.name} {how}", is_lost=True))

    def _tell_failure(self, failure: Failure) -> None:
        """Take in a failure and tell the others, who may not have seen it, unless there was one before."""
        if self._take_failure(failure):
            self._send_to_all(_FAILED, failure)

    def _take_failure(self, failure: Failure) -> bool:
        """Return whether this is the first failure that this process hears of."""
        with self._changed:
            if self.failure is not None:
                return False
            self.failure = failure
            self._changed.notify_all()
            actions = list(self._on_failure)
        for action in actions:
            action()
        return True
