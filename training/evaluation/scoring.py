"""Scores every trial of a part, batch after batch, and keeps what is done, so that a stop costs one batch.

An utterance is its first 64,600 samples, repeated if shorter, as in validation. Batch size and worker processes do not
change a score by more than float rounding (1e-4 is far above it); the same ones give the same bytes, stopped or not.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path

import torch

from models.detector import scores as log_odds
from training.data import Batch, ValidationBatches
from training.evaluation.partial_scores import PartialScores, partial_path, write_scores
from training.evaluation.subject import Subject
from training.interruption import StopRequest
from training.progress import progress
from training.starting_state import detector_settings
from utils.console import say
from utils.corpora import CorpusPart
from utils.errors import UserError


def score_part(subject: Subject, part: CorpusPart, output: Path, stop: StopRequest, *, quiet: bool) -> int:
    """Write the scores of all trials to `output` and return how many there are; fewer than all where `stop` came.

    `output` appears only when it is complete. Raises UserError where audio cannot be read, where a score is not
    finite and where the disk refuses.
    """
    names = [trial.utterance for trial in part.protocol.trials]
    gathered = PartialScores(partial_path(output), fingerprint(subject, part), names)
    size = subject.options.batch_size
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scores, is_foreign = gathered.read(size)
        if not quiet:
            _tell(gathered, len(scores), is_foreign)
        gathered.begin(scores)
        _score_rest(subject, part, gathered, scores, stop)
        if len(scores) == len(names):
            with_header = "ASVspoof 5" in part.layout or any(len(name.split()) != 1 for name in names)
            write_scores(output, names, scores, with_header=with_header)
            gathered.remove()
    except OSError as error:
        raise UserError(
            f"{error.filename or output} cannot be written ({error.strerror or error}): pass another --eval_output"
        ) from error
    return len(scores)


def fingerprint(subject: Subject, part: CorpusPart) -> str:
    """Return a hash of what decides on the bits of the scores: the checkpoints' bytes, detector, trials, how it is run.

    The detector's settings count too: a file of bare weights does not hold them, the flags do.
    """
    checkpoints = []
    for source in subject.sources:
        with source.open("rb") as file:
            checkpoints.append(hashlib.file_digest(file, "sha256").hexdigest())
    trials = zip(part.protocol.trials, part.audio_paths, strict=True)
    facts = {
        "checkpoints": checkpoints,
        "detector": asdict(detector_settings(subject.options)),
        "protocol": part.protocol.content_sha256,
        "trials": [(trial.utterance, str(path.resolve())) for trial, path in trials],
        "options": [subject.options.batch_size, subject.options.precision, str(subject.device)],
        "torch": [str(torch.__version__), torch.get_num_threads()],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _tell(gathered: PartialScores, num_scores: int, is_foreign: bool) -> None:
    if is_foreign:
        say(f"{gathered.path} is of another checkpoint, of other data or of other settings: scoring starts again")
    elif num_scores:
        say(f"Going on after {num_scores:,} of {len(gathered.names):,} trials, which {gathered.path} has")


def _score_rest(
    subject: Subject, part: CorpusPart, gathered: PartialScores, scores: list[str], stop: StopRequest
) -> None:
    options = subject.options
    pin = subject.device.type == "cuda"
    batches = ValidationBatches(part, batch_size=options.batch_size, num_workers=options.num_workers, pin_memory=pin)
    first = -(-len(scores) // options.batch_size)
    try:
        with progress("scoring", batches.num_batches, first) as bar:
            for batch in batches.batches(first):
                if stop.requested:
                    return
                texts = _score(subject, batch, gathered.names[len(scores) :])
                gathered.append(len(scores), texts)
                scores += texts
                bar.advance(utterances=len(texts))
    finally:
        batches.close()


def _score(subject: Subject, batch: Batch, names: object) -> list[str]:
    """Return the log-odds of a batch as text, enough digits for the float32 that they are."""
    use_bf16 = subject.options.precision == "bf16"
    with torch.inference_mode(), torch.autocast(subject.device.type, dtype=torch.bfloat16, enabled=use_bf16):
        output = subject.detector.analyse(batch.to(subject.device).waveforms)
    values = log_odds(output.log_probabilities.float()).cpu().tolist()
    for position, value in enumerate(values):
        if not math.isfinite(value):
            name = list(names)[position]  # type: ignore[call-overload]
            raise UserError(
                f"the score of {name} is {value}: the checkpoint's weights are not sound (--validate_checkpoints), or "
                "--precision fp32 is needed"
            )
    return [f"{value:.9g}" for value in values]
