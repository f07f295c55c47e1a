"""What --export onnx, torchscript and safetensors do: read a checkpoint, write the file, prove it, then name it.

The file is written beside its final name, opened again as a user would, and run on noise and on speech beside the
original; only then it is renamed. So a kill, a full disk and a failed check leave no file under that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError
from torch import Tensor

from models.log_mel import HifiGanMel
from training.checkpoints.record import CheckpointRecord
from training.checkpoints.verified_file import VerifiedFile
from training.checkpoints.verified_load import first_line
from training.data.database import database_folder
from training.export import onnx_file, torchscript_file, weights_file
from training.export.checking import TOLERANCE, Difference, differences, random_cases, real_case, takes_any_length
from training.export.exportable import Exportable, Score
from training.export.metadata import file_metadata
from training.export.scored_detector import ScoredDetector
from training.export.vocoded_speech import VocodedSpeech, vocoder_metadata
from training.export.whole_checkpoint import require_free
from training.settings.data import DEMO_DATABASE
from training.settings.tasks import VOCODER
from training.tasks.detectors import detector_in
from training.tasks.vocoding import generator_in
from utils.atomic_files import atomic_write, hold_temporary
from utils.errors import UserError

SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript", "safetensors": ".safetensors"}


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked, what it says of itself, and how far it is from the original."""

    path: Path
    format: str
    metadata: Mapping[str, str]
    checks: Sequence[Difference]


@dataclass(frozen=True)
class _Format:
    """How one format is written, and opened again to be checked."""

    any_length: bool
    write: Callable[[Mapping[str, str], BinaryIO], None]
    open_file: Callable[[Path, Mapping[str, str]], tuple[Score, dict[str, str]]]


@dataclass(frozen=True)
class _Subject:
    """The network to be exported, real inputs to check it with, and what its file says where it takes any length."""

    network: Exportable
    real: Mapping[str, Tensor]
    metadata: Callable[[bool], dict[str, str]]


def export_model(opened: VerifiedFile, format_name: str, target: Path | None, database_path: str | None) -> Exported:
    """Write the detector in a file, or its vocoder, to `target` (default: NAME.SUFFIX beside it).

    It is checked on audio of `database_path`; None: on that of the corpus of its training, or of the demo corpus where
    that is not here. Raises UserError where the file does not say its settings, where `target` exists or cannot be
    written, where packages are missing, and where the file does not give the original's outputs.
    """
    record = opened.record()
    if record is None:
        raise UserError(
            f"--export {format_name}: {opened.path} holds weights and not the settings of their training: pass a "
            "checkpoint or the best weights that bonafide wrote; a run started from it by --model_path has them"
        )
    target = _free_target(opened.path, format_name, target)
    if format_name == "onnx":
        onnx_file.require_packages()
    real = _real_case(database_path, record.options.database_path)
    subject = (_of_vocoder if record.task == VOCODER.name else _of_detector)(opened, record, real)
    network = subject.network.eval().requires_grad_(False)
    made = _make(format_name, network)
    metadata = subject.metadata(made.any_length)
    cases = {**random_cases(network.taken, made.any_length), **subject.real}
    try:
        with atomic_write(target) as file:
            made.write(metadata, file)
            file.flush()
            score, stored = _opened(made, Path(file.name), metadata, target)
            hold_temporary(file)  # whoever reads a file closes it, too
            checks = differences(network, score, cases)
            _require_good(target, checks, stored == metadata)
    except OSError as error:
        raise UserError(f"--export_path {target} could not be written: {error.strerror or error}") from error
    return Exported(target, format_name, metadata, checks)


def _of_detector(opened: VerifiedFile, record: CheckpointRecord, real: Mapping[str, Tensor]) -> _Subject:
    detector = detector_in(opened).detector
    return _Subject(
        ScoredDetector(detector), real, lambda any_length: file_metadata(record, detector, any_length, record.decision)
    )


def _of_vocoder(opened: VerifiedFile, record: CheckpointRecord, real: Mapping[str, Tensor]) -> _Subject:
    generator, shape = generator_in(opened, record.options)
    mel = HifiGanMel()
    return _Subject(
        VocodedSpeech(generator, shape),
        {case: mel(waveforms) for case, waveforms in real.items()},
        lambda any_length: vocoder_metadata(record, shape, any_length),
    )


def _opened(made: _Format, path: Path, metadata: Mapping[str, str], target: Path) -> tuple[Score, dict[str, str]]:
    try:
        return made.open_file(path, metadata)
    except (RuntimeError, SafetensorError) as error:  # what libraries say of a disk that does not give a file back
        raise UserError(f"{target} was not written: it could not be read back ({first_line(error)})") from error


def _free_target(source: Path, format_name: str, target: Path | None) -> Path:
    suffix = SUFFIXES[format_name]
    target = target or source.with_suffix(suffix)
    if format_name != "torchscript" and target.suffix != suffix:  # by which these are known to other programs, and ours
        raise UserError(f"--export_path for {format_name} must end in {suffix}, found {target}")
    require_free(target)
    return target


def _real_case(asked_for: str | None, trained_on: str) -> dict[str, Tensor]:
    found = real_case(database_folder(asked_for or trained_on))
    if asked_for and not found:
        raise UserError(f"--database_path {asked_for} holds no audio file: pass a folder to check with")
    return found or real_case(database_folder(DEMO_DATABASE))


def _make(format_name: str, network: Exportable) -> _Format:
    if format_name == "onnx":
        onnx_file.require_room_in_one_file(network)
        model, any_length = onnx_file.convert(network)
        return _Format(
            any_length,
            lambda metadata, file: onnx_file.write(model, metadata, file),
            lambda path, _: onnx_file.open_file(path),
        )
    if format_name == "torchscript":
        traced = torchscript_file.trace(network)
        return _Format(
            takes_any_length(network.taken, network, traced),
            lambda metadata, file: torchscript_file.write(traced, metadata, file),
            torchscript_file.open_file,
        )
    return _Format(
        True,
        lambda metadata, file: weights_file.write(network.network, metadata, file),
        lambda path, _: weights_file.open_file(path, network),
    )


def _require_good(target: Path, checks: Sequence[Difference], metadata_is_whole: bool) -> None:
    for check in checks:
        if not check.is_close:
            raise UserError(
                f"{target} was not written: its outputs differ from the original's by {check.greatest:.1e} on "
                f"{check.case}, and {TOLERANCE:.0e} is allowed"
            )
    if not metadata_is_whole:
        raise UserError(f"{target} was not written: what it says of itself could not be read back from it")
