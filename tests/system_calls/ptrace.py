"""ptrace and seccomp of Linux on x86-64 through ctypes: only what the recorder needs.

Sources: ptrace(2), seccomp(2), Documentation/userspace-api/seccomp_filter.rst; constants from linux/ptrace.h,
linux/seccomp.h and linux/bpf_common.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Mapping

from tests.system_calls.numbers import BY_DESCRIPTOR, BY_PATH, HARMLESS, NUMBERS

WALL = 0x40000000
CONT, SYSCALL, GETREGS, SETREGS, SEIZE, LISTEN = 7, 24, 12, 13, 0x4206, 0x4208
EVENT_SECCOMP, EVENT_STOP = 7, 128
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, TRACESECCOMP, EXITKILL
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER_MODE = 22, 38, 2
_ALLOW, _TRACE, _KILL = 0x7FFF0000, 0x7FF00000, 0x80000000
_LOAD, _AND, _IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_X86_64 = 0xC000003E
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_REGISTERS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base"
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


class Registers(ctypes.Structure):
    """struct user_regs_struct of sys/user.h."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in (*_REGISTERS.split(), "ds", "es", "fs", "gs"))

    def arguments(self) -> list[int]:
        """The six arguments of the system call, as unsigned numbers."""
        return [int(getattr(self, name)) for name in ARGUMENTS]


class _IOVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def ptrace(request: int, thread: int, data: int = 0) -> None:
    """Call ptrace; raises OSError."""
    if _libc.ptrace(request, thread, None, data) < 0:
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}, {thread}): {os.strerror(ctypes.get_errno())}")


def seize(process: int) -> None:
    """Begin to trace a child, its threads and its children; they die if this process does."""
    ptrace(SEIZE, process, _OPTIONS)


def registers_of(thread: int) -> Registers:
    """Return the registers of a stopped thread."""
    registers = Registers()
    ptrace(GETREGS, thread, ctypes.addressof(registers))
    return registers


def set_registers(thread: int, registers: Registers) -> None:
    """Set the registers of a stopped thread."""
    ptrace(SETREGS, thread, ctypes.addressof(registers))


def memory_of(process: int, address: int, length: int) -> bytes:
    """Return up to `length` bytes of another process's memory, fewer where no more are mapped."""
    buffer = ctypes.create_string_buffer(length)
    here, there = _IOVector(ctypes.addressof(buffer), length), _IOVector(address, length)
    done = _libc.process_vm_readv(process, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return buffer.raw[: max(0, done)]


def text_at(process: int, address: int) -> str:
    """Return the string that begins at an address of another process; "" for a null pointer."""
    found, page = b"", 4096
    while address and b"\0" not in found and len(found) <= page:
        found += memory_of(process, address + len(found), page - (address + len(found)) % page) or b"\0"
    return os.fsdecode(found.partition(b"\0")[0])


def stop_at_calls(also: Iterable[str], only: Iterable[str] = ()) -> None:
    """Make every system call of this process that is not harmless, and those in `also`, stop it for its tracer.

    Where `only` names some, no others: fast, and nothing notices a call that is not known. For a forked child, before
    it begins what is traced: a filter is never taken off again.
    """
    code = b"".join(_filter_of_some(sorted(only)) if only else _filter(frozenset(also)))
    program = ctypes.create_string_buffer(code)
    described = _Program(len(code) // 8, ctypes.addressof(program))
    for option, value, pointer in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _FILTER_MODE, None)):
        if _libc.prctl(option, value, ctypes.addressof(described) if pointer is None else 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl refused a seccomp filter")


def _filter(also: frozenset[str]) -> Iterable[bytes]:
    """Yield the instructions: an if for each call that is let through; whatever else there is, is traced."""

    allow, trace = _instruction(_RETURN, _ALLOW), _instruction(_RETURN, _TRACE)
    yield from _number_loaded()
    for name in sorted(HARMLESS - also):
        yield _instruction(_IF_EQUAL, NUMBERS[name], 0, 1)
        yield allow
    # What only some arguments make a change: not harmful where the masked argument is one of the values.
    conditional: Mapping[str, tuple[int, int, tuple[int, ...]]] = {
        "open": (1, _WRITES, (0,)),
        "openat": (2, _WRITES, (0,)),
        "mmap": (3, 0x1, (0,)),  # MAP_SHARED
        "ioctl": (1, 0xFFFFFFFF, _HARMLESS_IOCTLS),
    }
    for name, (number, mask, values) in conditional.items():
        if name not in also:
            test = [_instruction(_LOAD, 16 + 8 * number), _instruction(_AND, mask)]
            for value in values:
                test += [_instruction(_IF_EQUAL, value, 0, 1), allow]
            yield _instruction(_IF_EQUAL, NUMBERS[name], 0, len(test) + 1)
            yield from (*test, trace)
    yield trace


def _filter_of_some(names: Iterable[str]) -> Iterable[bytes]:
    """Yield the instructions that trace calls of these names alone."""
    yield from _number_loaded()
    for name in names:
        yield _instruction(_IF_EQUAL, NUMBERS[name], 0, 1)
        yield _instruction(_RETURN, _TRACE)
    yield _instruction(_RETURN, _ALLOW)


def _number_loaded() -> Iterable[bytes]:
    """Yield the instructions that begin a filter: the number of a call of x86-64 is looked at, another kills."""
    yield _instruction(_LOAD, 4)
    yield _instruction(_IF_EQUAL, _X86_64, 1, 0)
    yield _instruction(_RETURN, _KILL)
    yield _instruction(_LOAD, 0)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def why_not_here() -> str:
    """Return why nothing can be traced on this machine; "" where it can be."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"the recorder knows the system calls of Linux on x86-64, and this is {platform.platform()}"
    ready, begin = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(ready, 1)
            stop_at_calls(())
            os._exit(0)
        finally:
            os._exit(1)
    try:
        seize(child)
        refused = ""
    except OSError as error:
        refused = f"tracing is forbidden here: {error}"
    os.write(begin, b"x")
    os.close(ready)
    os.close(begin)
    # A traced child reports events too: let it run on until it has ended.
    while True:
        _, status = os.waitpid(child, WALL)
        if not os.WIFSTOPPED(status):
            break
        ptrace(CONT, child)
    return refused or ("" if os.waitstatus_to_exitcode(status) == 0 else "seccomp filters are forbidden here")


KNOWN = frozenset(BY_DESCRIPTOR) | frozenset(BY_PATH) | {"sync"}
"""The calls that the recorder records where they succeed in changing a watched folder."""
