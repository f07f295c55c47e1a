"""Tells from an error that memory ran out, whoever says so: Python, torch, CUDA or the system."""

from __future__ import annotations

import errno
import re

_OF_OTHERS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",  # cuBLAS and cuDNN
    "failed to map segment",  # the loader of shared libraries
    "could not create a primitive",  # oneDNN, which finds no room for the code it makes
    "could not create a memory",
)
_THREAD = "can't start new thread"
_ASKED_FOR = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)


def memory_shortage(error: BaseException) -> str:
    """Return in words what there is not enough of, "" where the error says something else.

    >>> memory_shortage(MemoryError())
    'memory ran out'
    >>> memory_shortage(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes."))
    'memory ran out (64 bytes more were asked for)'
    >>> memory_shortage(RuntimeError("shapes differ"))
    ''
    """
    seen: BaseException | None = error
    while seen is not None:
        if told := _told(seen):
            return told
        seen = seen.__cause__
    return ""


def _told(error: BaseException) -> str:
    text = str(error)
    if _THREAD in text:
        return "the system refuses another thread (`ulimit -u`, `ulimit -v`, or the container's limit)"
    is_pythons = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    is_of_others = isinstance(error, (RuntimeError, ImportError)) and any(word in text.lower() for word in _OF_OTHERS)
    if not (is_pythons or is_of_others):
        return ""
    asked_for = _ASKED_FOR.search(text)
    more = f" ({asked_for[1]} more were asked for)" if asked_for else ""
    return f"{'the memory of the GPU' if 'CUDA' in text else 'memory'} ran out{more}"
