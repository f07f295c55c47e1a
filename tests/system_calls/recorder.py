"""Records what a program, with its threads and children, does to a folder, as the kernel sees it; and lets it fail.

    traced = trace(["python", "main.py", ...], [folder])            # a command, or a function, which runs in a fork
    for call in traced.calls: print(call)
    trace(work, [folder], faults=[Fault("fsync", r"\\.pth", occurrence=2, error=errno.EIO)], also=READS)

`trace` returns the calls on what lies in the watched folders, in the order in which they took effect: a thread that
enters such a call is alone with its file until the call returned. `Call` says which paths and inodes, and which bytes
were written where, read back from the file itself, so that it does not matter which call wrote them. Calls that fail
are recorded too. `also` names further calls to record, which change nothing: those of `READS`, for instance.

Whatever could change a folder in a way that is not recorded ends the trace with UnknownCallError: a call that
`tests/system_calls/numbers.py` does not know, io_uring, writable shared maps and unknown ioctls of watched files.

A `Fault` makes the n-th call of a kind fail with an error, do only part of its bytes, or be the last of its process.
Only one thing can happen to one call; the fault listed first goes first.

It needs Linux on x86-64 and leave to trace a child (`why_not_here`), and no other program.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.system_calls import calls, ptrace
from tests.system_calls.calls import Call, UnknownCallError
from tests.system_calls.numbers import HARMLESS, KINDS, NAMES, READING_BY_DESCRIPTOR, READING_BY_PATH
from tests.system_calls.ptrace import why_not_here

__all__ = ["READS", "Call", "Fault", "Traced", "UnknownCallError", "trace", "why_not_here"]

READS = frozenset(READING_BY_DESCRIPTOR) | frozenset(READING_BY_PATH) | KINDS["open"]
"""What reads, opens and closes, for `also`."""
_LENGTH_AT = dict.fromkeys(("read", "pread64", "write", "pwrite64", "sendfile", "copy_file_range", "splice"), 2)
_LENGTH_AT |= {"sendfile": 3, "copy_file_range": 4, "splice": 4}
_VECTORS_AT = dict.fromkeys(("readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2"), 2)


@dataclass(frozen=True)
class Fault:
    """What happens to the calls of a kind (or of one name) on a path that matches, from the n-th on, `times` times.

    Exactly one of: `error`, the call is not made and fails so (`close` is made, as the kernel does); `count`, it does
    at most so many bytes, 0 for half of what was asked; `kill`, its process gets SIGKILL instead of it. `after` makes
    the call first.
    """

    kind: str
    path: str = ""
    occurrence: int = 1
    times: int = 1
    error: int | None = None
    count: int | None = None
    kill: bool = False
    after: bool = False

    def matches(self, call: Call) -> bool:
        """Whether this call is one to count."""
        return self.kind in (call.kind, call.name) and any(re.search(self.path, path) for path in call.paths)


@dataclass(frozen=True)
class Traced:
    """What came of a traced program: below 0, `exit_code` is the signal that ended it. `output` is all it printed."""

    calls: tuple[Call, ...]
    exit_code: int
    output: str


def trace(
    program: Sequence[str | Path] | Callable[[], int | None],
    watched: Sequence[Path | str],
    *,
    also: frozenset[str] = frozenset(),
    only: frozenset[str] = frozenset(),
    faults: Sequence[Fault] = (),
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 300,
) -> Traced:
    """Run a command, or a function in a fork of this process, and return its calls on `watched`, paths that exist.

    "/memfd:NAME" is the path of a file in memory, by memfd_create(2): a program can tell things in one. The function's
    exit code is what it returns, or 1 where it raises. Where `only` names calls, no others are seen, and unknown ones
    are not noticed: that is fast, and enough to let a known call fail. Raises UnknownCallError, and TimeoutError where
    the program has not ended after `timeout_s`.
    """
    with tempfile.TemporaryFile() as output:
        ready, begin = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(begin)
            _be_traced(program, ready, output.fileno(), (also, only), cwd, environment)
        os.close(ready)
        recorder = _Recorder(child, tuple(map(_real, watched)), list(faults))
        late = threading.Timer(timeout_s, recorder.give_up)
        try:
            with contextlib.suppress(PermissionError):  # it has begun already
                os.setpgid(child, child)
            ptrace.seize(child)
            late.start()
            os.write(begin, b"x")
            exit_code = recorder.run()
        finally:
            late.cancel()
            os.close(begin)
            recorder.end()
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if recorder.gave_up:
        raise TimeoutError(
            f"the traced program has not ended after {timeout_s} s (threads: {recorder.gave_up}): {printed[-2000:]}"
        )
    return Traced(tuple(recorder.calls), exit_code, printed)


def _real(path: Path | str) -> str:
    return os.path.realpath(path) if Path(path).exists() else str(path)


def _be_traced(
    program: Sequence[str | Path] | Callable[[], int | None],
    ready: int,
    output: int,
    stopping_at: tuple[frozenset[str], frozenset[str]],
    cwd: Path | None,
    environment: Mapping[str, str] | None,
) -> None:
    """Become the traced program; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.read(ready, 1)
        os.close(ready)
        for number in (1, 2):
            os.dup2(output, number)
        if cwd:
            os.chdir(cwd)
        ptrace.stop_at_calls(*stopping_at)
        if callable(program):
            os.environ.update(environment or {})
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115  (pytest may have its own)
            code = program() or 0
        else:
            os.execvpe(program[0], list(map(str, program)), {**os.environ, **(environment or {})})
    except BaseException:  # noqa: BLE001  (whatever it is, a fork of a test must not go on as a second test)
        os.write(2, traceback.format_exc().encode())
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


class _Recorder:
    """Lets one process group run from stop to stop."""

    def __init__(self, root: int, watched: tuple[str, ...], faults: list[Fault]) -> None:
        self.calls: list[Call] = []
        self.gave_up = ""
        self._root, self._watched = root, watched
        self._faults, self._seen = faults, [0] * len(faults)
        self._process_of: dict[int, int] = {}

    def give_up(self) -> None:
        """End the program, from another thread, and keep what its threads were doing: "S" waits, "t" is stopped."""
        tasks = sorted(Path(f"/proc/{self._root}/task").glob("*/stat"))
        self.gave_up = ", ".join(task.read_text().partition(" (")[2][:40] for task in tasks) or "it is gone"
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._root, signal.SIGKILL)

    def end(self) -> None:
        """Kill whatever of the program is still there, and wait for it."""
        self._kill()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-self._root, ptrace.WALL)

    def run(self) -> int:
        """Return the exit code of the first process once all have ended."""
        exit_code = 0
        while True:
            try:
                thread, status = os.waitpid(-self._root, ptrace.WALL)
            except ChildProcessError:
                return exit_code
            if os.WIFSTOPPED(status):
                with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                    self._stopped(thread, status)
            else:
                self._process_of.pop(thread, None)
                exit_code = os.waitstatus_to_exitcode(status) if thread == self._root else exit_code

    def _stopped(self, thread: int, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == ptrace.EVENT_SECCOMP:
            self._called(thread)
        elif event == ptrace.EVENT_STOP and number != signal.SIGTRAP:
            ptrace.ptrace(ptrace.LISTEN, thread)  # stopped by a signal, as a job of a shell: it stays so
        else:
            ptrace.ptrace(ptrace.CONT, thread, 0 if event else number)

    def _called(self, thread: int) -> None:
        registers = ptrace.registers_of(thread)
        name = NAMES.get(registers.orig_rax, f"system call {registers.orig_rax}")
        if name not in ptrace.KNOWN and name not in HARMLESS:
            raise UnknownCallError(f"the program called {name}, of which nobody has said what it does to files")
        call = calls.begun(name, self._process(thread), thread, registers.arguments(), self._watched)
        fault = self._fault_of(call) if call else None
        if call and fault and fault.kill and not fault.after:
            self.calls.append(replace(call, result=-signal.SIGKILL, faulty=True))
            os.kill(call.process, signal.SIGKILL)
            return
        if call and fault and fault.error and not (fault.after or name == "close"):
            self.calls.append(replace(call, result=-fault.error, faulty=True))
            registers.orig_rax, registers.rax = 2**64 - 1, 2**64 - fault.error  # no call, and its result
            ptrace.set_registers(thread, registers)
        elif call:
            self._carried_out(call, thread, fault)
        ptrace.ptrace(ptrace.CONT, thread)

    def _carried_out(self, call: Call, thread: int, fault: Fault | None) -> None:
        """Let one thread make its call while all others wait at theirs, and record it; a fault may change it."""
        asked, less = ptrace.registers_of(thread), ptrace.registers_of(thread)
        if fault and fault.count is not None:
            _ask_for_less(less, call.name, fault.count)
            ptrace.set_registers(thread, less)
        ptrace.ptrace(ptrace.SYSCALL, thread)
        _, status = os.waitpid(thread, ptrace.WALL)
        if not os.WIFSTOPPED(status):  # killed in it
            raise ProcessLookupError
        after = ptrace.registers_of(thread)
        result = struct.unpack("q", struct.pack("Q", after.rax))[0]
        if -517 <= result <= -512:  # interrupted by a signal: the kernel makes it again
            return
        self.calls.append(replace(calls.returned(replace(call, result=result), asked.arguments()), faulty=bool(fault)))
        if fault:
            for argument in ptrace.ARGUMENTS:  # as the program left them
                setattr(after, argument, getattr(asked, argument))
            after.rax = 2**64 - fault.error if fault.error else after.rax
            ptrace.set_registers(thread, after)
        if fault and fault.kill:
            os.kill(call.process, signal.SIGKILL)

    def _fault_of(self, call: Call) -> Fault | None:
        chosen = None
        for number, fault in enumerate(self._faults):
            if fault.matches(call):
                self._seen[number] += 1
                if fault.occurrence <= self._seen[number] < fault.occurrence + fault.times:
                    chosen = chosen or fault
        return chosen

    def _process(self, thread: int) -> int:
        if thread not in self._process_of:
            facts = Path(f"/proc/{thread}/status").read_text()
            self._process_of[thread] = int(facts.partition("Tgid:")[2].split()[0])
        return self._process_of[thread]


def _ask_for_less(registers: ptrace.Registers, name: str, count: int) -> None:
    """Lower the number of bytes, or of buffers, that a call asks for; 0 stands for half."""
    if name in _LENGTH_AT:
        argument = ptrace.ARGUMENTS[_LENGTH_AT[name]]
        asked = getattr(registers, argument)
        setattr(registers, argument, min(asked, count) if count else max(1, asked // 2))
    elif name in _VECTORS_AT:
        setattr(registers, ptrace.ARGUMENTS[_VECTORS_AT[name]], 1)
