"""A pickle read as data: it comes out as it went in, and nothing in it ever runs, however it was made or damaged."""

from __future__ import annotations

import collections
import contextlib
import io
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from utils.inert_pickle import Call, InertPickleError, read_inert_pickle

PLAIN = {
    "none": None,
    "yes": True,
    "no": False,
    "numbers": [0, 255, 65535, -1, 2**31, -(2**70), 1.5, float("inf")],
    "texts": ["", "é", "x" * 300],
    "bytes": [b"", b"abc"],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": {"a": {"b": [{"c": 1}]}},
    3: "a number as key",
}


def read(data: bytes) -> Any:
    return read_inert_pickle(io.BytesIO(data)).value


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_out_as_they_went_in(protocol: int) -> None:
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("protocol", range(3))
def test_old_protocols_are_read_too(protocol: int) -> None:
    without_bytes = {key: value for key, value in PLAIN.items() if key != "bytes"}
    assert read(pickle.dumps(without_bytes, protocol)) == without_bytes


def test_what_pickle_would_call_is_noted_with_its_arguments_items_and_state() -> None:
    ordered = collections.OrderedDict(a=1)
    ordered.extra = 2  # type: ignore[attr-defined]
    found = read(pickle.dumps(ordered, 2))
    assert isinstance(found, Call)
    assert (found.function, found.mapping, found.state) == ("collections.OrderedDict", {"a": 1}, {"extra": 2})


class _Command:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_a_command_is_only_read(protocol: int, tmp_path: Path) -> None:
    made = tmp_path / "made"
    data = pickle.dumps({"weights": _Command(Path.touch, made), "more": _Command(eval, "1 / 0")}, protocol)
    found = read_inert_pickle(io.BytesIO(data))
    assert not made.exists()
    assert "builtins.eval" in found.names and found.value["more"].arguments == ("1 / 0",)
    pickle.loads(pickle.dumps(_Command(Path.touch, made), protocol))
    assert made.exists(), "the command does run in pickle, so that this test tests something"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "nothing"),
        (b"\x80\x02}", "no end"),
        (b"\x80\x02.", "no value"),
        (b"\x80\x02\xff.", "an unknown opcode"),
        (b"\x80\x02t.", "a tuple without a mark"),
        (b"\x80\x02h\x05.", "a memo that was never put"),
        (b"\x80\x02K\x01K\x02R.", "a call of a number"),
        (b"\x80\x02K\x01K\x02a.", "an append to a number"),
        (b"\x80\x02K\x01K\x02K\x03s.", "a key in a number"),
        (b"\x80\x02K\x01}b.", "a state of a number"),
        (b"\x80\x02(cos\nsystem\no.", "an opcode that torch does not write"),
        (b"\x80\x02cos\x1b[2J\nsystem\n.", "a name that is none"),
        (b"\x80\x02\x82\x01.", "an extension code"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "a text longer than the file"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "bytes longer than any memory"),
    ],
)
def test_what_is_no_whole_pickle_is_an_error(data: bytes, why: str) -> None:
    with pytest.raises(InertPickleError):
        read(data)


def test_a_memo_index_of_four_billion_costs_nothing() -> None:
    """pickle's own reader would fill a table of 64 GB."""
    assert read(b"\x80\x02K\x01r\xff\xff\xff\xff0j\xff\xff\xff\xff.") == 1


def test_a_key_that_cannot_be_hashed_or_would_take_forever_is_replaced() -> None:
    deep = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."
    assert list(read(deep)) == ["<tuple 0>"]
    assert list(read(b"\x80\x02}]K\x01s.")) == ["<list 0>"]


def test_a_list_that_holds_itself_is_read() -> None:
    endless: list[Any] = []
    endless.append(endless)
    found = read(pickle.dumps(endless))
    assert found[0] is found


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_damage_raises_anything_but_the_named_error(protocol: int) -> None:
    values = [collections.OrderedDict(a=_Command(eval, "1 / 0")), {1, 2}, frozenset([3]), 1 + 2j, list(range(50))]
    data, chance = pickle.dumps([PLAIN["nested"], values, values], protocol), random.Random(protocol)
    started = time.monotonic()
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        with contextlib.suppress(InertPickleError):
            read(bytes(changed[: chance.choice([len(data), chance.randrange(len(data))])]))
    assert time.monotonic() - started < 60
