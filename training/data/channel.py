"""Objects from process to process over a stream socket, with the numbers of their arrays beside the pickle.

What torch's DataLoader shares goes through files in /dev/shm, of which a container has 64 MB unless it is told
otherwise, and through a descriptor a tensor. Here neither is needed: a batch of 16 utterances takes 2 ms.
"""

from __future__ import annotations

import pickle
import socket
import struct
from contextlib import suppress
from typing import Any

import numpy as np

_SIZE = struct.Struct("<Q")


class ChannelClosedError(ConnectionError):
    """The other end is gone."""


class Channel:
    """One end. `receive` and `send` may each be called by one thread at a time."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, thing: object) -> None:
        """Hand over whatever can be pickled; waits until the other end takes it. Raises ChannelClosedError."""
        arrays: list[pickle.PickleBuffer] = []
        parts = [memoryview(pickle.dumps(thing, protocol=5, buffer_callback=arrays.append))]
        parts += [array.raw() for array in arrays]
        try:
            self._end.sendall(b"".join(_SIZE.pack(size) for size in (len(parts), *(part.nbytes for part in parts))))
            for part in parts:
                self._end.sendall(part)
        except OSError as error:
            raise ChannelClosedError from error

    def receive(self) -> Any:
        """Return what the other end sent, when it is there; raises ChannelClosedError."""
        count = _SIZE.unpack(self._bytes(_SIZE.size))[0]
        sizes = [size for (size,) in _SIZE.iter_unpack(self._bytes(count * _SIZE.size))]
        pickled, *arrays = [self._bytes(size) for size in sizes]
        return pickle.loads(pickled, buffers=arrays)

    def _bytes(self, size: int) -> memoryview:
        found = memoryview(np.empty(size, np.uint8).data)
        done = 0
        while done < size:
            try:
                taken = self._end.recv_into(found[done:], size - done, socket.MSG_WAITALL)
            except OSError as error:
                raise ChannelClosedError from error
            if not taken:
                raise ChannelClosedError
            done += taken
        return found

    def shut(self) -> None:
        """End what is under way at both ends, in other threads too."""
        with suppress(OSError):  # the other end may be gone already
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of this end in this process."""
        self._end.close()
