"""Calls of a training fail one at a time, below Python; the user gets a sentence, and the next start the same bits.

A sample: every fault of every call is `python -m benchmarks.fault_sweep`, see `make soak`.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash_states.scenarios import warm_up
from tests.fault_sweep.cases import FAULTS_OF, Case, cases_of, first_middle_last, pattern_of
from tests.fault_sweep.trainings import TOY, TRAININGS
from tests.fault_sweep.trying import Undisturbed, differing, try_case
from tests.records import record, write_checkpoint
from tests.system_calls.recorder import Call, why_not_here

needs_tracing = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "it can be traced here")
_MEMORY = Path("/dev/shm")
_SEED = 11


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def undisturbed(place: Path, corpus: Path) -> Undisturbed:
    (place / "warm").mkdir()
    warm_up(place / "warm", corpus)
    return Undisturbed.trained(TRAININGS[TOY], corpus, place / "training")


@needs_tracing
def test_a_call_that_fails_loses_nothing_and_the_next_start_ends_with_the_same_bits(
    undisturbed: Undisturbed, place: Path
) -> None:
    """One call of some kinds, drawn at random."""
    kinds = ("close", "fsync", "read", "rename", "write")
    draw = random.Random(_SEED)
    cases = [draw.choice([case for case in undisturbed.cases if case.kind == kind]) for kind in kinds]
    outcomes = [try_case(case, undisturbed, place / "case") for case in cases]
    assert [(str(one.case), one.wrong) for one in outcomes if one.wrong] == []
    assert sum(one.struck for one in outcomes) >= len(kinds) - 1


@needs_tracing
def test_a_start_that_left_the_temporaries_of_a_killed_one_would_be_noticed(
    undisturbed: Undisturbed, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = [one for one in undisturbed.cases if one.kind == "rename" and one.fault == "killed"]
    case = next(one for one in kills if "checkpoint_epoch_1" in one.pattern)
    monkeypatch.setattr("utils.atomic_files._is_being_written", lambda _: True)
    wrong = try_case(case, undisturbed, place / "case").wrong
    assert any(".tmp-checkpoint_epoch_1.pth" in one and one.endswith("is left") for one in wrong), wrong


NO_PICTURES = "[WARNING] No attention heatmaps in models/x/final_attention_analysis: No space left on device"


@pytest.mark.parametrize(
    ("missing", "said", "wrong"),
    [
        ("final_attention_analysis/a.png", "", ["a.png is not there"]),
        ("final_attention_analysis/a.png", NO_PICTURES, []),
        ("final_attention_analysis/a.png", None, ["a.png is not there"]),
        ("at_4.pth", "", ["at_4.pth is not there"]),
        ("at_4.pth", "[WARNING] models/x/at_4.pth could not be saved: Input/output error", []),
        ("at_4.pth", None, []),
        (
            "epoch_1.pth",
            "[WARNING] models/x/epoch_1.pth could not be saved: Input/output error",
            ["epoch_1.pth is not"],
        ),
        ("epoch_1.pth", None, ["epoch_1.pth is not there"]),
    ],
)
def test_only_what_was_said_to_be_refused_may_be_missing_and_not_for_good(
    missing: str, said: str | None, wrong: list[str], workplace: Path
) -> None:
    """`said` is None after the next start: step checkpoints may be missing then, and pictures no more."""
    path = Path("after", "models", "x", missing)
    if path.suffix == ".pth":
        write_checkpoint(path, record(path, 1, batches_done=2 if missing == "at_4.pth" else 0))
    else:
        path.parent.mkdir(parents=True)
        path.touch()
    Path("here", "final_attention_analysis").mkdir(parents=True)
    undisturbed = Undisturbed(TRAININGS[TOY], Path(), Path(), Path("after"), Path("models", "x"), (), 0)
    found = differing(undisturbed, Path("here"), said)
    assert len(found) == len(wrong) and all(a.startswith(b) for a, b in zip(found, wrong, strict=True)), found


PATTERNS = [
    ("/f/models/x/.tmp-a.pth-123-0123abcd", r"/models/x/\.tmp\-a\.pth\-\d+\-[0-9a-f]{8}$"),
    ("/f/.tmp-link-from-99", r"/\.tmp\-link\-from\-\d+$"),
    ("/f/logs/events.out.tfevents.1.host.2", r"/logs/events\.out\.tfevents[^/]*$"),
    ("/f/checkpoint_epoch_2.pth", r"/checkpoint_epoch_2\.pth$"),
]


@pytest.mark.parametrize(("path", "pattern"), PATTERNS)
def test_a_path_is_found_again_whatever_is_random_in_it(path: str, pattern: str) -> None:
    assert pattern_of(path, "/f") == pattern


def test_every_call_gets_the_faults_of_its_kind_and_a_site_its_first_middle_and_last() -> None:
    write = Call("write", 1, 1, ("/f/a",))
    cases = list(cases_of([replace(write, paths=("/elsewhere/a",)), *[write] * 9], "/f"))
    assert [case.occurrence for case in cases] == [n for n in range(1, 10) for _ in FAULTS_OF["write"]]
    chosen: list[Case] = first_middle_last(cases)
    # The first write of all has no call before it: a site of its own.
    assert [case.occurrence for case in chosen if case.fault == "EIO"] == [1, 2, 6, 9]
