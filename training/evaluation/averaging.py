"""The mean of the weights of several epochs of one run: which ones, and the mean itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from training.checkpoints.record import CheckpointRecord, Kind
from training.checkpoints.rows import rank
from training.checkpoints.verified_file import VerifiedFile, open_verified
from training.checkpoints.weights import Weights, load_weights
from training.runs.survey import survey_folder
from utils.errors import UserError
from utils.folders import is_folder


def epochs_to_average(records: Iterable[CheckpointRecord], number: int, which: str) -> list[CheckpointRecord]:
    """Return the last or the best `number` epoch checkpoints, or all where there are fewer, oldest first.

    The best have the lowest validation EER, of equal ones the lowest loss, then the earlier epoch.
    """
    epochs = [(record, record.last) for record in records if record.kind is Kind.EPOCH and record.last]
    if which == "best":
        chosen = sorted(epochs, key=lambda pair: rank(pair[1], pair[0].figures))[:number]
    else:
        chosen = sorted(epochs, key=lambda pair: pair[0].position)[-number:]
    return sorted((record for record, _ in chosen), key=lambda record: record.position)


def find_epochs_to_average(folder: Path, number: int, which: str) -> list[CheckpointRecord]:
    """Return the checkpoints in a run folder to average; raises UserError where there are not so many."""
    if not is_folder(folder):
        raise UserError(
            f"--average_checkpoints takes the epochs of a run folder, found {folder}: pass --model_path FOLDER"
        )
    found = epochs_to_average(survey_folder(folder).checkpoints, number, which)
    if len(found) < number:
        raise UserError(
            f"--average_checkpoints {number}: {folder} holds {len(found)} epoch checkpoints: pass at most that "
            "number, or train with a higher --keep_last_n"
        )
    return found


def mean_of_weights(paths: Sequence[Path], open_file: Callable[[Path], VerifiedFile] = open_verified) -> Weights:
    """Return the last file's weights, with the mean of each floating-point tensor in place of its own.

    One file at a time is opened, loaded and in memory beside the sums, which are in float64. The running statistics of
    batch norms are averaged as weights are: they are then not those that the mean weights would have. Raises UserError
    for files of different detectors.
    """
    sums: dict[str, torch.Tensor] = {}
    for path in paths[:-1]:
        _add(sums, load_weights(open_file(path)), paths[0])
    last = load_weights(open_file(paths[-1]))
    _add(sums, last, paths[0])
    mean = {
        name: (sums[name] / len(paths)).to(part.dtype) if part.is_floating_point() else part
        for name, part in last.state_dict.items()
    }
    return replace(last, state_dict=mean)


def _add(sums: dict[str, torch.Tensor], weights: Weights, first: Path) -> None:
    shapes = {name: part.shape for name, part in weights.state_dict.items()}
    if sums and shapes != {name: part.shape for name, part in sums.items()}:
        raise UserError(f"{weights.path} holds other layers than {first}: only epochs of one detector have a mean")
    for name, part in weights.state_dict.items():
        sums[name] = sums[name] + part.double() if name in sums else part.double()
