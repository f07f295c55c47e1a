"""What scores: a detector from a checkpoint or a file of weights, its settings, and the threshold stored with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from models.detector import Detector
from training.checkpoints.decision import NO_THRESHOLD, Decision
from training.checkpoints.foreign_weights import renamed_from_fairseq
from training.checkpoints.record import CheckpointRecord, WeightsFile
from training.checkpoints.safetensors_file import SAFETENSORS_SUFFIX, read_metadata
from training.checkpoints.weights import load_into, load_weights, taken_text
from training.evaluation.averaging import find_epochs_to_average, mean_of_weights
from training.planning.refusals import refuse_verb
from training.runs.experiments import run_to_look_at
from training.runs.finding import find_source
from training.settings.options import SETTINGS, Options
from training.settings.requests import Scoring
from training.settings.setting import OnChange
from training.tasks.detectors import detector_settings, empty_detector, load_detector
from utils.console import say
from utils.errors import UserError
from utils.machine import choose_device, make_deterministic
from utils.version import PROGRAM


@dataclass(frozen=True)
class Subject:
    """A detector in evaluation mode on `device`, the files it came from, and the settings of the evaluation.

    `sources` are one checkpoint or file of weights, or those whose mean the detector is, oldest first. `decision` is
    the threshold that was stored for exactly these weights; where there is none, `why_undecided` says why.
    """

    sources: tuple[Path, ...]
    detector: Detector
    options: Options
    device: torch.device
    decision: Decision | None = None
    why_undecided: str = ""


def load_subject(command: Scoring) -> Subject:
    """Load what --model_path names, or the checkpoint of the run that the flags name.

    Settings come from the file; only those of data and machine that were given win over it. Raises UserError where
    there is no such file, where it is damaged, and where a flag contradicts the detector in it.
    """
    place = command.model_path or _run_of_the_flags(command)
    places = [place]
    if command.average_checkpoints:
        epochs = find_epochs_to_average(place, command.average_checkpoints, command.load_checkpoint_type)
        places = [record.path for record in epochs]
    sources = [find_source(path, command.load_checkpoint_type) for path in places]
    found = sources[-1]
    refuse_verb(command.flag, found.path, found.options)
    options = _settings(command, found)
    device = choose_device(options.device)
    make_deterministic(found.num_threads if isinstance(found, CheckpointRecord) else None)
    if found.options is None:
        weights = load_weights(found.path)
        detector = empty_detector(detector_settings(options), weights)
        weights = renamed_from_fairseq(weights, detector)
        taken = taken_text(weights, load_into(detector, weights))
        if not command.as_json:
            say(taken)
        decision = _exported_decision(found.path)
        why = "" if decision else f"{found.path.name} holds weights alone, and no threshold"
        return Subject((found.path,), detector.to(device).eval(), options, device, decision, why)
    trained, paths = load_detector(found.path, device), tuple(source.path for source in sources)
    if len(paths) > 1:
        trained.detector.load_state_dict(mean_of_weights(paths))
        why = "the mean of several epochs was never validated, so that no threshold was stored for it"
        return Subject(paths, trained.detector, options, device, why_undecided=why)
    return Subject(paths, trained.detector, options, device, trained.decision, "" if trained.decision else NO_THRESHOLD)


def _exported_decision(path: Path) -> Decision | None:
    """Return the threshold that --export safetensors wrote into a file's header, without a calibration; None elsewhere.

    A checkpoint without a threshold exports none.
    """
    if path.suffix.lower() != SAFETENSORS_SUFFIX:
        return None
    stored = read_metadata(path)
    if stored.get("program") != PROGRAM or "threshold" not in stored:
        return None
    try:
        return Decision(int(stored["step"]), float(stored["threshold"]), None, None)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: the threshold in its header cannot be read ({error}): export it again") from error


def _run_of_the_flags(command: Scoring) -> Path:
    run = run_to_look_at(command.options)
    if not run.all_checkpoints and not run.unusable:
        raise UserError(
            f"{command.flag}: there is no checkpoint in {run.folder}, the run that these flags name: pass "
            "--model_path PATH, or the flags that the run was started with"
        )
    return run.folder


def _settings(command: Scoring, found: CheckpointRecord | WeightsFile) -> Options:
    given = {name: getattr(command.options, name) for name in command.given}
    if found.options is None:
        return command.options
    for name, value in given.items():
        stored = getattr(found.options, name)
        if SETTINGS[name].on_change is OnChange.REFUSED and value != stored:
            raise UserError(
                f"--{name} {value} contradicts {found.path}, which holds a detector with {name} {stored}: leave the "
                "flag out, the detector's settings come from the checkpoint"
            )
    if "database_path" in given:
        given.setdefault("protocols_path", None)
    given.setdefault("balanced_batches", False)  # of training only; with it an odd --batch_size would be refused
    return found.options.replaced(**given)
