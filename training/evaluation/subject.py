"""What scores: a detector from a checkpoint or a file of weights, its settings, and how its verdicts are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from models.detector import Detector
from training.checkpoints.decision import NO_DECISION, Decision
from training.checkpoints.examined import WeightsFile
from training.checkpoints.file_format import FileFormat
from training.checkpoints.foreign_weights import renamed_from_fairseq
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.safetensors_file import metadata_in
from training.checkpoints.verified_file import VerifiedFile
from training.checkpoints.weights import load_into, load_weights, taken_text
from training.evaluation.averaging import find_epochs_to_average, mean_of_weights
from training.evaluation.judge import Judge, judge_of
from training.planning.refusals import refuse_verb
from training.runs.experiments import run_to_look_at
from training.runs.finding import find_source
from training.settings.options import SETTINGS, Options
from training.settings.requests import Evaluate, Scoring
from training.settings.setting import OnChange
from training.tasks.detectors import detector_in, detector_settings, empty_detector, trained_detector
from training.tasks.swa import SWA, has_batch_norm, load_mean
from utils.console import say
from utils.errors import UserError
from utils.machine import choose_device, make_deterministic
from utils.stored_values import OddValueError, plain_json
from utils.version import PROGRAM

_MEAN_IS_UNDECIDED = "the mean of several epochs was never validated, so that there is no calibration for it"
_STATISTICS_ARE_A_MEAN = (
    "is not of the end of a training, or of one by an earlier version: the batch-norm statistics of its mean are the "
    "mean of the epochs' own, where a training that ends computes them anew"
)
UNLESS_TYPED = "fp32"
"""The --precision of scores: what made training faster need not round what is decided by them."""
BATCH_SIZE_ON_A_CPU = 4
"""Of scores, where no --batch_size is asked for: what a CPU keeps in its caches (docs/measurements.md)."""


@dataclass(frozen=True)
class Subject:
    """A detector in evaluation mode on `device`, the files it came from, and the settings of the evaluation.

    `sources` are one checkpoint or file of weights, or those whose mean the detector is, oldest first. `judge`
    makes verdicts, by the calibration that was stored for exactly these weights, or says why it does not. `digests` are
    the digests of the sources, for --eval alone. `trained_precision` is None where the file does not say it, and
    `record`, that of the last source, where it has none.
    """

    sources: tuple[Path, ...]
    detector: Detector
    options: Options
    device: torch.device
    judge: Judge
    digests: tuple[str, ...] = ()
    epochs_of_swa: tuple[int, ...] = ()
    trained_precision: str | None = None
    record: CheckpointRecord | None = None

    @property
    def mean_of(self) -> str:
        """What is said before the sources where the detector is a mean; "" where it is not."""
        if self.epochs_of_swa:
            return f"the mean of the weights of epochs {', '.join(map(str, self.epochs_of_swa))} (--swa), kept in "
        return f"the mean of the weights of {len(self.sources)} epochs: " if len(self.sources) > 1 else ""

    @property
    def precision_text(self) -> str:
        """With how many digits it scores, and that training used others where it did."""
        used, trained = self.options.precision, self.trained_precision
        if trained in (None, used):
            return used
        return f"{used}, where training used {trained} (--precision {trained} scores in that, too)"


def find_subject(command: Scoring) -> VerifiedFile:
    """Return the file that --model_path names, or the checkpoint of the run that the flags name."""
    return find_source(command.model_path or _run_of_the_flags(command), command.load_checkpoint_type)


def load_subject(command: Scoring, opened: VerifiedFile | None = None) -> Subject:
    """Load what `find_subject` gives, where it is not given already.

    Settings come from the file; only those of data and machine that were given win over it, and scores are computed in
    fp32 unless --precision was typed, whatever training, or the file of --config, used; on a CPU in batches that are
    good for it. Raises UserError where
    there is no such file, where it is damaged, and where a flag contradicts the detector in it.
    """
    if command.average_checkpoints:
        return _mean_of_epochs(command, command.model_path or _run_of_the_flags(command), command.average_checkpoints)
    opened = opened or find_subject(command)
    refuse_verb(command.flag, opened.path, opened.source.options)
    digests = _digests(command, opened)
    options = _settings(command, opened.path, opened.source.options)
    options, device = _prepared_device(command, options, opened.source)
    if opened.record() is None:
        if _wants_swa(command):
            load_mean(opened)  # which says what is missing
        return _of_bare_weights(command, opened, options, device, digests)
    if _wants_swa(command):
        return _mean_of_swa(command, opened, options, device, digests)
    trained = detector_in(opened, device)
    judge = judge_of(trained.decision, command.prior, opened.path.name, trained.validation, NO_DECISION)
    return Subject(
        (opened.path,),
        trained.detector,
        options,
        device,
        judge,
        digests,
        trained_precision=trained.options.precision,
        record=opened.record(),
    )


def _wants_swa(command: Scoring) -> bool:
    """Whether --swa was typed, or is in the settings file given: that a run was trained with it is not enough."""
    return command.options.swa and "swa" in command.given


def _mean_of_swa(
    command: Scoring, opened: VerifiedFile, options: Options, device: torch.device, digests: tuple[str, ...]
) -> Subject:
    """Load the mean that a run with --swa keeps in its checkpoints."""
    mean = load_mean(opened)
    record = opened.record()
    assert record is not None, "a file without a record holds no mean"
    detector = trained_detector(record, mean.weights, device).detector
    if has_batch_norm(detector) and not mean.has_own_statistics and not command.as_json:
        say(f"[NOTE] --swa: {opened.path.name} {_STATISTICS_ARE_A_MEAN}")
    return Subject(
        (opened.path,),
        detector,
        options,
        device,
        Judge(why_not=_MEAN_IS_UNDECIDED),
        digests=tuple(f"{SWA} {digest}" for digest in digests),  # other scores than those of the epoch in that file
        epochs_of_swa=mean.epochs,
        trained_precision=record.options.precision,
        record=record,
    )


def _digests(command: Scoring, opened: VerifiedFile) -> tuple[str, ...]:
    """Return the digest of a file for score files, which say what they were made of; loading gives its bytes back."""
    return (opened.digest(),) if isinstance(command, Evaluate) else ()


def _prepared_device(
    command: Scoring, options: Options, found: CheckpointRecord | WeightsFile
) -> tuple[Options, torch.device]:
    """Return the device to score on, and the settings with the batch size that is good there, if none was given."""
    device = choose_device(options.device)
    make_deterministic(found.num_threads if isinstance(found, CheckpointRecord) else None)
    if device.type == "cpu" and "batch_size" not in command.given:
        options = options.replaced(batch_size=BATCH_SIZE_ON_A_CPU)
    return options, device


def _of_bare_weights(
    command: Scoring, opened: VerifiedFile, options: Options, device: torch.device, digests: tuple[str, ...]
) -> Subject:
    """Load weights that do not say what they were trained with: the settings are those of the flags."""
    decision, why_not = _exported_decision(opened)
    weights = load_weights(opened)
    detector = empty_detector(detector_settings(options), weights)
    weights = renamed_from_fairseq(weights, detector)
    taken = taken_text(weights, load_into(detector, weights))
    if not command.as_json:
        say(taken)
    judge = judge_of(decision, command.prior, opened.path.name, None, why_not)
    return Subject((opened.path,), detector.to(device).eval(), options, device, judge, digests)


def _mean_of_epochs(command: Scoring, folder: Path, number: int) -> Subject:
    """Load the mean of several epochs, whose files are opened one after the other; settings are those of the last."""
    epochs = find_epochs_to_average(folder, number, command.load_checkpoint_type)
    paths, last = tuple(record.path for record in epochs), epochs[-1]
    refuse_verb(command.flag, last.path, last.options)
    options = _settings(command, last.path, last.options)
    options, device = _prepared_device(command, options, last)
    digests: list[str] = []

    def open_file(path: Path) -> VerifiedFile:
        opened = find_source(path, command.load_checkpoint_type)
        digests.extend(_digests(command, opened))
        return opened

    detector = trained_detector(last, mean_of_weights(paths, open_file), device).detector
    judge = Judge(why_not=_MEAN_IS_UNDECIDED)
    return Subject(
        paths,
        detector,
        options,
        device,
        judge,
        tuple(digests),
        trained_precision=last.options.precision,
        record=last,
    )


def _exported_decision(opened: VerifiedFile) -> tuple[Decision | None, str]:
    """Return the decision that --export safetensors wrote into a file's header, or None and why there is none."""
    path = opened.path
    without = f"{path.name} holds weights alone, and no calibration"
    if opened.format is not FileFormat.SAFETENSORS:
        return None, without
    stored = metadata_in(opened.content.reader())
    if stored.get("program") != PROGRAM or not {"threshold", "decision"} & set(stored):
        return None, without
    if "decision" not in stored:
        return None, (
            f"{path.name} was exported by an earlier version, with the threshold of the EER and no calibration: export "
            "it again"
        )
    try:
        return Decision.from_dict(plain_json(stored["decision"])), without
    except OddValueError as error:
        raise UserError(f"{path}: the decision in its header cannot be read ({error}): export it again") from error


def _run_of_the_flags(command: Scoring) -> Path:
    run = run_to_look_at(command.options)
    if not run.all_checkpoints and not run.unusable:
        raise UserError(
            f"{command.flag}: there is no checkpoint in {run.folder}, the run that these flags name: pass "
            "--model_path PATH, or the flags that the run was started with"
        )
    return run.folder


def _settings(command: Scoring, path: Path, stored_options: Options | None) -> Options:
    given = {name: getattr(command.options, name) for name in command.given}
    if "precision" not in command.typed:
        given["precision"] = UNLESS_TYPED
    if stored_options is None:
        return command.options.replaced(precision=given["precision"])
    for name, value in given.items():
        stored = getattr(stored_options, name)
        if SETTINGS[name].on_change is OnChange.REFUSED and value != stored and name != SWA:
            raise UserError(
                f"--{name} {value} contradicts {path}, which holds a detector with {name} {stored}: leave the "
                "flag out, the detector's settings come from the checkpoint"
            )
    if "database_path" in given:
        given.setdefault("protocols_path", None)
        given.setdefault("label_1", None)
    given.setdefault("balanced_batches", False)  # of training only; with it an odd --batch_size would be refused
    return stored_options.replaced(**given)
