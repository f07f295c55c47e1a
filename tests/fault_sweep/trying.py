"""Lets one call of a training fail, judges what the user sees and what is left, starts again, and compares the bits."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.comparing import bits, differences, log_rows
from tests.crash_states.promises import is_checkpoint
from tests.crash_states.recorded import Told, telling
from tests.crash_states.scenarios import Scenario
from tests.fault_sweep.cases import Case, cases_of
from tests.system_calls.recorder import READS, Call, Traced, trace
from tests.toy_task import registered
from training.checkpoints.sealed_file import broken_seal
from utils.atomic_files import TEMPORARY_PREFIX

_TOLD = "/memfd:told"
_SEEN_ANYHOW = frozenset(("write", "fsync", "rename", "link", "unlink", "mkdir", "symlink", "truncate"))
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
        for command in scenario.before:
            done = trace(scenario.work(command, corpus), [], cwd=before)
            assert done.exit_code == 0, done.output
        shutil.copytree(before, after, symlinks=True)
        done = _traced(scenario, corpus, after)
        assert done.exit_code == 0, done.output
        folder, told = os.path.realpath(after), [Told.read(call.data) for call in _telling_calls(done)]
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
        done = _traced(undisturbed.scenario, undisturbed.corpus, scratch, case)
        wrong = [*_wrongly_ended(done, case), *_lost(done, scratch)]
        if done.exit_code == 0:
            wrong += [f"exit code 0, and {text}" for text in _differing(undisturbed, scratch)]
        again = trace(undisturbed.scenario.start_again(undisturbed.corpus), [], cwd=scratch)
        if again.exit_code or _BROKEN.search(again.output):
            wrong.append(f"the next start: exit code {again.exit_code}: {again.output[-600:]}")
        else:
            wrong += [f"after the next start {text}" for text in _differing(undisturbed, scratch)]
            wrong += [f"after the next start {text}" for text in _left(undisturbed, scratch, again.output)]
    finally:
        shutil.rmtree(scratch)
    struck = any(call.faulty for call in done.calls)
    return Outcome(case, struck, done.exit_code, tuple(wrong) if struck else (), done.output if wrong else "")


def _traced(scenario: Scenario, corpus: Path, folder: Path, case: Case | None = None) -> Traced:
    return trace(
        telling(scenario.work(scenario.command, corpus)),
        [folder, _TOLD],
        cwd=folder,
        also=frozenset() if case and case.kind in _SEEN_ANYHOW else READS,
        faults=[case.injected] if case else [],
        timeout_s=120,
    )


def _telling_calls(done: Traced) -> list[Call]:
    return [call for call in done.calls if call.kind == "write" and call.paths == (_TOLD,)]


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


def _lost(done: Traced, folder: Path) -> list[str]:
    """Return which checkpoints that were said to be saved are gone, and which files are damaged."""
    kept: dict[str, tuple[str, ...]] = {}
    for one in (Told.read(call.data) for call in _telling_calls(done)):
        if one.what == "checkpoint":
            kept[one.path] = (one.path,)
        elif one.what == "moving" and one.path in kept:
            kept[one.path] = (one.path, one.to)
        elif one.what == "released":
            kept.pop(one.path, None)
    wrong = [f"{path} is lost" for path, names in kept.items() if not any((folder / name).exists() for name in names)]
    files = [path for path in folder.rglob("*") if path.is_file() and is_checkpoint(path.name)]
    return wrong + [f"{path.name} is damaged: {broken}" for path in files if (broken := broken_seal(path))]


def _differing(undisturbed: Undisturbed, folder: Path) -> list[str]:
    """Return what a run lacks of the undisturbed one, or has with other bits."""
    there, here = undisturbed.after / undisturbed.own, folder / undisturbed.own
    names = [{path.name for path in run.rglob("*")} if run.is_dir() else set() for run in (there, here)]
    wrong = [f"{name} is not there" for name in sorted(names[0] - names[1]) if "_step_" not in name]
    with registered():
        for name in sorted(names[0] & names[1]):
            if name.startswith("best_model"):
                loaded = [torch.load(run / name, weights_only=True) for run in (there, here)]
                weights = [{key: one[key] for key in one if key.endswith("state_dict")} for one in loaded]
                wrong += differences(weights[0], weights[1], name)
            elif is_checkpoint(name):
                wrong += differences(bits(there / name), bits(here / name), name)
            elif name == "training_log.csv" and log_rows(there) != log_rows(here):
                wrong.append("training_log.csv has other rows")
    return wrong[:5]


def _left(undisturbed: Undisturbed, folder: Path, said: str) -> list[str]:
    """Return what lies there that nothing will use: temporaries, and files that retention would have deleted.

    The file that the last start went on from stays, and so does what a finished run kept.
    """
    wrong = [f"{path.relative_to(folder)} is left" for path in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*"))]
    there, here = undisturbed.after / undisturbed.own, folder / undisturbed.own
    surplus = {path.name for path in here.rglob("*")} - {path.name for path in there.rglob("*")}
    excused = {name for name in surplus if name in said or name.startswith(TEMPORARY_PREFIX)}
    return wrong + [f"{name} is left" for name in sorted(surplus - excused) if _REACHED not in said]
