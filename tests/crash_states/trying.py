"""Tries the states that crashes may leave of a recording: each is judged, and what the program sees is counted once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.comparing import bits, differences
from tests.crash_states.disk import Recording
from tests.crash_states.judging import copy_out, looks, place_in_memory, seen_by_the_program
from tests.crash_states.model import Counts, Model, State, states
from tests.crash_states.promises import Labels, Promises, is_checkpoint, is_read, tidings_of
from tests.crash_states.recorded import Told
from tests.crash_states.scenarios import Scenario
from tests.system_calls.recorder import trace
from tests.toy_task import registered
from training.runs.directory import is_version, version_number
from utils.atomic_files import TEMPORARY_PREFIX


def own_folder(recording: Recording) -> Path:
    """Return the folder of the run that was recorded: that of the last checkpoint saved."""
    told = [Told.read(step.told) for step in recording.steps if step.told]
    return [Path(one.path).parent for one in told if one.what == "checkpoint"][-1]


def went_on(state: State, scenario: Scenario, corpus: Path, undisturbed: Path, own: Path, scratch: Path) -> list[str]:
    """Start the program on a state, as a user does after a crash; return what is not as in the undisturbed run."""
    scratch.mkdir()
    copy_out(state.disk, scratch)
    done = trace(scenario.start_again(corpus), [], cwd=scratch)
    if done.exit_code:
        return [f"exit code {done.exit_code}: {done.output[-500:]}"]
    there, here = undisturbed / own, run_gone_on_with(scratch / own)
    names = [{path.name for path in folder.iterdir() if path.name != ".lock"} for folder in (there, here)]
    wrong = [f"{path} is left" for path in sorted(scratch.rglob(f"{TEMPORARY_PREFIX}*"))]
    # Not what lies between epochs: the step checkpoint that a run goes on from stays, and another run has another.
    gone = sorted(name for name in names[0] - names[1] if version_number(name) is None and "step" not in name)
    wrong += [f"{name} is not there" for name in gone]
    wrong += [f"{name} is left" for name in sorted(names[1] - names[0]) if version_number(name) is not None]
    with registered():
        for name in sorted(names[0] & names[1]):
            if name.startswith("best_model"):
                parts = [torch.load(folder / name, weights_only=True)["echo_state_dict"] for folder in (there, here)]
                wrong += differences(parts[0], parts[1], name)
            elif is_checkpoint(name):
                wrong += differences(bits(there / name), bits(here / name), name)
    shutil.rmtree(scratch)
    return wrong


def run_gone_on_with(own: Path) -> Path:
    """Return the folder of a run, or of the next version where the run had no checkpoint to go on from."""
    if not is_version(own):
        return own
    return max(own.parent.iterdir(), key=lambda folder: version_number(folder.name) or 0)


@dataclass
class Tried:
    """What came of it: `seen` has a number for each state that looks different to the program."""

    counts: Counts = field(default_factory=Counts)
    seen: set[int] = field(default_factory=set)
    bad: list[str] = field(default_factory=list)
    sample: list[State] = field(default_factory=list)


def try_states(
    recording: Recording,
    scenario: Scenario,
    corpus: Path,
    scratch: Path,
    models: Sequence[Model] = tuple(Model),
    *,
    keep: Callable[[int], bool] = lambda _: False,
    most: int = 512,
) -> Tried:
    """Judge the states that the last program of a recording may leave in a crash.

    `keep` says of the n-th new one whether it belongs into the sample.
    """
    tried, labels = Tried(), Labels(scratch / "labels" / "file.pth")
    request, own = scenario.request(corpus), own_folder(recording)
    with registered(), place_in_memory(scratch / "place") as place:
        tidings = tidings_of(recording, labels)
        for model in models:
            promises = Promises(recording, labels, tidings)
            judged: set[tuple[int, int]] = set()
            for state in states(recording, model, is_read, tried.counts, begin=recording.last_from, most=most):
                promises.advance_to(state.number)
                look = looks(state, labels)
                if (look, promises.told) in judged:
                    continue
                judged.add((look, promises.told))
                wrong = list(promises.broken_by(state))
                place.show(state.disk)
                wrong += seen_by_the_program(request, promises, own)
                if wrong:
                    after = recording.steps[state.number - 1].call if state.number else "the start"
                    tried.bad.append(f"{model.value}, after step {state.number}, {after}: {'; '.join(wrong)}")
                if look not in tried.seen and keep(len(tried.seen)):
                    tried.sample.append(state)
                tried.seen.add(look)
    shutil.rmtree(scratch / "labels", ignore_errors=True)
    return tried
