"""Lets one call of a training fail, judges what the user sees and what is left, starts again, and compares the bits."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.comparing import bits, differences, log_rows
from tests.crash_states.promises import is_checkpoint
from tests.crash_states.recorded import Told, telling
from tests.crash_states.scenarios import Scenario
from tests.crash_states.trying import run_gone_on_with
from tests.fault_sweep.cases import Case, cases_of
from tests.system_calls.recorder import READS, Traced, trace
from tests.toy_task import registered
from training.checkpoints.examined import examine
from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.sealed_file import broken_seal
from utils.atomic_files import TEMPORARY_PREFIX

_REACHED = "Target epochs already reached"
_BROKEN = re.compile(r"Traceback|Exception ignored|Fatal Python error")


@dataclass(frozen=True)
class Undisturbed:
    """A training that nothing disturbed: `before` is the folder it began in, `after` the one it left, `own` its run."""

    scenario: Scenario
    corpus: Path
    before: Path
    after: Path
    own: Path
    cases: tuple[Case, ...]
    num_calls: int

    @classmethod
    def trained(cls, scenario: Scenario, corpus: Path, place: Path, *, with_stats: bool = False) -> Undisturbed:
        """Train in the empty folder `place`, and return all faults that its calls may have."""
        before, after = place / "before", place / "after"
        before.mkdir(parents=True)
        for number, command in enumerate(scenario.before, 1):
            killed = [scenario.killed] if scenario.killed and number == len(scenario.before) else []
            done = trace(scenario.work(command, corpus), [before], cwd=before, faults=killed)
            assert done.exit_code == (-9 if killed else 0), done.output
        shutil.copytree(before, after, symlinks=True)
        done, told = _traced(scenario, corpus, after)
        assert done.exit_code == 0, done.output
        folder = os.path.realpath(after)
        own = [Path(one.path).parent for one in told if one.what == "checkpoint"][-1]
        cases = [case for case in cases_of(done.calls, folder) if with_stats or case.kind != "stat"]
        return cls(scenario, corpus, before, after, own, tuple(cases), len(done.calls))


@dataclass(frozen=True)
class Outcome:
    """What came of one case: `struck` says whether the call came at all, `wrong` what was broken."""

    case: Case
    struck: bool
    exit_code: int
    wrong: tuple[str, ...]
    output: str = ""


def try_case(case: Case, undisturbed: Undisturbed, scratch: Path) -> Outcome:
    """Train with one fault in a folder that is made for it and removed, start again, and judge both."""
    shutil.copytree(undisturbed.before, scratch, symlinks=True)
    try:
        done, told = _traced(undisturbed.scenario, undisturbed.corpus, scratch, case)
        wrong = [*_wrongly_ended(done, case), *_lost(told, scratch)]
        if done.exit_code == 0:
            own = scratch / undisturbed.own
            wrong += [f"exit code 0, and {text}" for text in differing(undisturbed, own, done.output)]
        has_saved = any(one.what == "checkpoint" and Path(one.path).parent == undisturbed.own for one in told)
        again = trace(undisturbed.scenario.start_again(undisturbed.corpus), [], cwd=scratch)
        if again.exit_code or _BROKEN.search(again.output):
            wrong.append(f"the next start: exit code {again.exit_code}: {again.output[-600:]}")
        else:
            own = scratch / undisturbed.own if has_saved else run_gone_on_with(scratch / undisturbed.own)
            wrong += [f"after the next start {text}" for text in differing(undisturbed, own)]
            wrong += [f"after the next start {text}" for text in _left(undisturbed, scratch, own, again.output)]
    except TimeoutError as error:
        return Outcome(case, True, 0, (str(error),))
    finally:
        shutil.rmtree(scratch)
    struck = any(call.faulty for call in done.calls)
    return Outcome(case, struck, done.exit_code, tuple(wrong) if struck else (), done.output if wrong else "")


def _traced(scenario: Scenario, corpus: Path, folder: Path, case: Case | None = None) -> tuple[Traced, list[Told]]:
    told = os.memfd_create("told")
    try:
        done = trace(
            telling(scenario.work(scenario.command, corpus), told),
            [folder],
            cwd=folder,
            also=READS,
            only=frozenset((case.call,)) if case else frozenset(),
            faults=[case.injected] if case else [],
            timeout_s=300,
        )
        return done, Told.read_all(told)
    finally:
        os.close(told)


def _wrongly_ended(done: Traced, case: Case) -> list[str]:
    """Return what is wrong with how it ended: a user sees one sentence or a warning, never a traceback."""
    wrong = [f"it said {found.group()}" for found in [_BROKEN.search(done.output)] if found]
    if case.fault == "killed":
        return wrong + ([] if done.exit_code == -9 else [f"killed, and exit code {done.exit_code}"])
    if done.exit_code not in (0, 1):
        wrong.append(f"exit code {done.exit_code}")
    errors = re.findall(r"^error: .*$", done.output, re.MULTILINE)
    if len(errors) != (1 if done.exit_code == 1 else 0):
        wrong.append(f"exit code {done.exit_code}, and {len(errors)} sentences that begin with error:")
    return wrong


def _lost(told: Sequence[Told], folder: Path) -> list[str]:
    """Return which checkpoints that were said to be saved are gone, and which files are damaged."""
    kept: dict[str, tuple[str, ...]] = {}
    for one in told:
        if one.what == "checkpoint":
            kept[one.path] = (one.path,)
        elif one.what == "moving" and one.path in kept:
            kept[one.path] = (one.path, one.to)
        elif one.what == "released":
            kept.pop(one.path, None)
    wrong = [f"{path} is lost" for path, names in kept.items() if not any((folder / name).exists() for name in names)]
    files = [path for path in folder.rglob("*") if path.is_file() and is_checkpoint(path.name)]
    return wrong + [f"{path.name} is damaged: {broken}" for path in files if (broken := broken_seal(path))]


def differing(undisturbed: Undisturbed, here: Path, said: str | None = None) -> list[str]:
    """Return what a run lacks of the undisturbed one, or has with other bits.

    What lies between epochs may be missing, since another stop leaves another step; where all is over at the first go,
    only what was `said` to be refused, and with it pictures, which --visualize_attention draws of the same weights.
    """
    there = undisturbed.after / undisturbed.own
    names = [_names_in(there), _names_in(here)]
    with registered():
        steps = {name for name in names[0] if _is_step(there / name)}
    excused = {name for name in steps if said is None or f"/{name} could not" in said}
    for folder in re.findall(r"^\[WARNING\] No attention heatmaps in (.+?): ", said or "", re.MULTILINE):
        excused |= {Path(folder).name, *_names_in(there / Path(folder).name)}
    wrong = [f"{name} is not there" for name in sorted(names[0] - names[1] - excused)]
    with registered():
        for name in sorted(names[0] & names[1]):
            if name.startswith("best_model"):
                loaded = [torch.load(run / name, weights_only=True) for run in (there, here)]
                weights = [{key: one[key] for key in one if key.endswith("state_dict")} for one in loaded]
                wrong += differences(weights[0], weights[1], name)
            elif is_checkpoint(name):
                wrong += differences(_bits_once(there / name), bits(here / name), name)
            elif name == "training_log.csv" and log_rows(there) != log_rows(here):
                wrong.append("training_log.csv has other rows")
    return wrong[:5]


_bits_once = functools.cache(bits)


@functools.cache
def _is_step(path: Path) -> bool:
    found = examine(path) if is_checkpoint(path.name) and path.is_file() else None
    return isinstance(found, CheckpointRecord) and found.kind is Kind.STEP


def _names_in(run: Path) -> set[str]:
    return {path.name for path in run.rglob("*")} if run.is_dir() else set()


def _left(undisturbed: Undisturbed, folder: Path, here: Path, said: str) -> list[str]:
    """Return what lies there that nothing will use: temporaries, and files that retention would have deleted.

    The checkpoint that the last start went on from stays, and so does what a finished run kept.
    """
    wrong = [f"{path.relative_to(folder)} is left" for path in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*"))]
    surplus = _names_in(here) - _names_in(undisturbed.after / undisturbed.own)
    gone_on_from = {name for name in surplus if is_checkpoint(name) and name in said}
    excused = gone_on_from | {name for name in surplus if name.startswith(TEMPORARY_PREFIX)}
    return wrong + [f"{name} is left" for name in sorted(surplus - excused) if _REACHED not in said]
