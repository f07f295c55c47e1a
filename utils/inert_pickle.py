"""Reads a pickle as data: nothing that it names is imported, called or built, so nothing in it can ever run.

`pickletools.genops` of the standard library decodes the opcodes; this file keeps the stack. What pickle would build by
calling something becomes a `Call`, which is a note and not an action:

>>> import decimal, io, pickle
>>> found = read_inert_pickle(io.BytesIO(pickle.dumps({"half": decimal.Decimal("0.5")})))
>>> found.value["half"].function, found.value["half"].arguments
('decimal.Decimal', ('0.5',))
>>> found.names
frozenset({'decimal.Decimal'})
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

_DOTTED_NAME = re.compile(r"\w+(\.\w+)*")
# Keys of these types are kept; another one, which might be a trap to hash, is replaced by a text.
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))

# A damaged pickle, or one made to be, can ask for anything; files of other programs may have no checksum.
BAD_PICKLE = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    ImportError,
    struct.error,
)


class InertPickleError(Exception):
    """Bytes that are no whole pickle, or one with an opcode that no program of our field writes."""


@dataclass(frozen=True)
class Global:
    """Something that the pickle names: a class or function, as `module.name`."""

    name: str


@dataclass(frozen=True, eq=False)
class Reference:
    """A persistent id: what it stands for lies outside the pickle. torch uses it for the storages of tensors."""

    key: Any


@dataclass(eq=False)
class Call:
    """What pickle would have built by calling `function`, and what it would then have put in.

    `function` is the name of a class or function, or `name()` for what the call of `name` would have returned.
    """

    function: str
    arguments: tuple[Any, ...]
    mapping: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)
    state: Any = None


@dataclass(frozen=True, eq=False)
class InertPickle:
    """The value of a pickle, out of plain values, `Call`, `Global` and `Reference`; and every name it mentions."""

    value: Any
    names: frozenset[str]


def read_inert_pickle(file: IO[bytes]) -> InertPickle:
    """Read one pickle from where `file` stands; raises InertPickleError where that cannot be done.

    Containers may hold themselves: whoever walks through the value must expect that.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            machine.step(opcode.name, argument)
        return InertPickle(machine.stack[-1], frozenset(machine.names))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise InertPickleError(str(error) or type(error).__name__) from error


class _Machine:
    """The stack, the stacks below its marks, and the memo of the pickle machine (see `pickletools` in Python)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.names: set[str] = set()

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _NEW:
            self.stack.append(_NEW[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise ValueError(f"it has the opcode {opcode}")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        found = self.stack
        self.stack = self.below.pop()
        return found

    def drop_since_mark(self) -> None:
        self.stack = self.below.pop()

    def discard(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.drop_since_mark()

    def push_tuple(self, length: int) -> None:
        parts = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(parts)))

    def push_global(self, name: str) -> None:
        if not _DOTTED_NAME.fullmatch(name):
            raise ValueError("it names something that can be no class or function")
        name = re.sub(r"^__builtin__\.", "builtins.", name)
        self.names.add(name)
        self.stack.append(Global(name))

    def push_global_of_stack(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push_global(f"{module}.{name}")

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global | Call) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no function")
        name = function.name if isinstance(function, Global) else f"{function.function}()"
        self.stack.append(Call(name, arguments))

    def call_with_keywords(self) -> None:
        keywords = self.stack.pop()
        self.call()
        self.put_into_mapping(list(keywords.items()))

    def set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call):
            raise ValueError("it gives a state to a plain value")
        target.state = state

    def put_into_mapping(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        mapping = target.mapping if isinstance(target, Call) else target
        if not isinstance(mapping, dict):
            raise ValueError("it puts a key into what is no dictionary")
        for key, value in pairs:
            mapping[key if isinstance(key, _PLAIN_KEYS) else f"<{type(key).__name__} {len(mapping)}>"] = value

    def put_into_list(self, values: list[Any]) -> None:
        target = self.stack[-1]
        elements = target.elements if isinstance(target, Call) else target
        if not isinstance(elements, list):
            raise ValueError("it appends to what is no list")
        elements.extend(values)


def _nothing(machine: _Machine, argument: Any) -> None:
    """Frames, the protocol's number and the end change nothing."""


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _dict(machine: _Machine) -> None:
    pairs = _pairs(machine.since_mark())
    machine.stack.append({})
    machine.put_into_mapping(pairs)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put_into_mapping([(key, value)])


_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_NEW: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # a list holds what cannot be hashed
}
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "STOP": _nothing,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.discard(),
    "POP_MARK": lambda machine, _: machine.drop_since_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": lambda machine, _: _dict(machine),
    "APPEND": lambda machine, _: machine.put_into_list([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.put_into_list(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.put_into_list(machine.since_mark()),
    "SETITEM": lambda machine, _: _set_item(machine),
    "SETITEMS": lambda machine, _: machine.put_into_mapping(_pairs(machine.since_mark())),
    "PUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "GET": lambda machine, index: machine.push(machine.memo[index]),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": lambda machine, name: machine.push_global(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.push_global_of_stack(),
    "BINPERSID": lambda machine, _: machine.push(Reference(machine.stack.pop())),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "NEWOBJ_EX": lambda machine, _: machine.call_with_keywords(),
    "BUILD": lambda machine, _: machine.set_state(),
}
