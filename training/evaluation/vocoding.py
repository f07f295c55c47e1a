"""What --eval does with a vocoder: copies the bona fide speech of a part and measures how near the copies are.

Each utterance is copied whole. Mel distance, lower is better; PESQ (wide band, ITU-T P.862.2) and STOI, higher is
better, where their packages are installed. An utterance for which PESQ is not defined has none, the same in every run.
A stop writes nothing: the same command begins anew.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from training.checkpoints.verified_file import VerifiedFile
from training.data.database import corpus_place
from training.data.loading import read_waveforms
from training.evaluation.subject import UNLESS_TYPED
from training.settings.options import Options
from training.settings.requests import Evaluate
from training.tasks.perceived_quality import Measure, pesq_measure
from training.tasks.vocoding import Vocoder, generator_in
from utils.atomic_files import write_text_atomically
from utils.audio.waveforms import SAMPLE_RATE_HZ, Waveform
from utils.console import say
from utils.corpora import CorpusPart, bona_fide_of, find_evaluation_part
from utils.errors import EXIT_USAGE, UserError
from utils.interruption import StopRequest, stop_on_signals
from utils.machine import choose_device, make_deterministic
from utils.progress import progress
from utils.waiting import StopAskedError

TITLES = {"mel": "mel distance", "pesq": "PESQ", "stoi": "STOI"}
_PACKAGES = {"pesq": "pesq", "stoi": "pystoi"}
_FOR_SCORES = ("asv_scores", "plots", "average_checkpoints")


@dataclass(frozen=True)
class Vocoded:
    """How near copies are to their sources: for each utterance its figures by name, None where one has none.

    `missing` are the packages without which a figure could not be measured. With an `exit_code` it was stopped.
    """

    source: Path
    part: CorpusPart
    rows: Mapping[str, Mapping[str, float | None]]
    missing: tuple[str, ...] = ()
    output: Path | None = None
    exit_code: int = 0

    def mean(self, name: str) -> float | None:
        """Return the mean of a figure over the utterances that have it; None where none has."""
        values = self._values(name)
        return fmean(values) if values else None

    def count(self, name: str) -> int:
        """Return how many utterances have a figure."""
        return len(self._values(name))

    def _values(self, name: str) -> list[float]:
        return [value for row in self.rows.values() if (value := row.get(name)) is not None]


def evaluate_vocoder(command: Evaluate, opened: VerifiedFile) -> Vocoded:
    """Copy the bona fide speech of the evaluation part, or of the development part where there is none, and measure.

    The figures of each utterance go into --eval_output, else beside the checkpoint. Raises UserError where that is not
    possible, and for what goes with scores only.
    """
    for name in _FOR_SCORES:
        if getattr(command, name) is not None:
            raise UserError(f"--{name} goes with scores, and {opened.path} is a vocoder: drop it", EXIT_USAGE)
    stored = opened.source.options
    options = _options(command, stored) if stored else command.options
    generator, _ = generator_in(opened, options)
    make_deterministic()
    precision = command.options.precision if "precision" in command.typed else UNLESS_TYPED
    vocoder = Vocoder(generator, choose_device(options.device), precision)
    database, protocols, label_1 = corpus_place(options)
    known = record.data if (record := opened.record()) else {}
    found = find_evaluation_part(
        database, protocols, options.track, command.subset or "all", known, label_1=label_1, needs_spoofs=False
    )
    part = bona_fide_of(found)
    measures = measures_that_are_there()
    missing = tuple(package for name, package in _PACKAGES.items() if name not in measures)
    output = command.eval_output or opened.path.with_name(f"{opened.path.stem}_copies_{part.name}.tsv")
    if not command.as_json:
        say(f"Copying {len(part):,} bona fide utterances of {part.protocol.path} with {opened.path}")
    with stop_on_signals() as stop:
        try:
            rows = _measured(vocoder, part, measures, stop)
        except StopAskedError:
            return Vocoded(opened.path, part, {}, exit_code=stop.exit_code or 1)
    done = Vocoded(opened.path, part, rows, missing, output)
    try:
        write_text_atomically(output, _table(done))
    except OSError as error:
        raise UserError(f"--eval_output {output} cannot be written: {error.strerror or error}") from error
    return done


def _options(command: Evaluate, stored: Options) -> Options:
    """Return the settings of the file, those of data and machine that were given in their place."""
    names = command.given & {"database_path", "protocols_path", "label_1", "device", "num_workers"}
    given = {name: getattr(command.options, name) for name in names}
    if "database_path" in given:
        given = {"protocols_path": None, "label_1": None, **given}
    return stored.replaced(**given)


def _measured(
    vocoder: Vocoder, part: CorpusPart, measures: Mapping[str, Measure], stop: StopRequest
) -> dict[str, dict[str, float | None]]:
    rows: dict[str, dict[str, float | None]] = {}
    with progress("copies", len(part), unit="utterances") as bar:
        sounds = read_waveforms(part.audio_paths, stop)
        for trial, sound in zip(part.protocol.trials, sounds, strict=True):
            copy = vocoder.copy(sound)
            others = {name: measure(sound, copy.waveform) for name, measure in measures.items()}
            rows[trial.utterance] = {"mel": copy.mel_distance, **others}
            bar.advance(utterances=1)
            if stop.requested:
                raise StopAskedError
    return rows


def measures_that_are_there() -> dict[str, Measure]:
    """Return by name what is measured of a copy beside its mel distance, as far as the packages are installed."""
    return {name: measure for name in _PACKAGES if (measure := _measure(name))}


def _measure(name: str) -> Measure | None:
    """Return how a figure is measured; None where its package is not installed."""
    if name == "pesq":
        return pesq_measure()
    try:
        return _stoi(importlib.import_module(_PACKAGES[name]))
    except ImportError:
        return None


def _stoi(package: Any) -> Measure:
    def measure(source: Waveform, copy: Waveform) -> float | None:
        found = float(package.stoi(source, copy, SAMPLE_RATE_HZ))
        return found if math.isfinite(found) else None

    return measure


def _table(found: Vocoded) -> str:
    names = [name for name in TITLES if found.count(name)]
    lines = ["\t".join(["utterance", *names])]
    for utterance, row in found.rows.items():
        lines.append("\t".join([utterance, *(_cell(row.get(name)) for name in names)]))
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def vocoded_text(found: Vocoded) -> str:
    """Return the figures as they are printed."""
    total = len(found.rows)
    lines = [f"Copies of {total:,} utterances by {found.source}"]
    for name, title in TITLES.items():
        mean, count = found.mean(name), found.count(name)
        if mean is not None:
            left_out = f" ({total - count} of {total} have none)" if count < total else ""
            lines.append(f"  {title + ':':14}{mean:.4f}{left_out}")
    if found.missing:
        missing = ", ".join(found.missing)
        lines.append(f"  not measured for want of {missing}: pip install -r requirements-vocoder.txt")
    return "\n".join([*lines, f"Each utterance: {found.output}"])


def vocoded_document(found: Vocoded) -> dict[str, Any]:
    """Return the figures as --json prints them."""
    figures: Sequence[str] = [name for name in TITLES if found.count(name)]
    return {
        "model": str(found.source),
        "part": found.part.name,
        "utterances": len(found.rows),
        "means": {name: found.mean(name) for name in figures},
        "counts": {name: found.count(name) for name in figures},
        "missing": list(found.missing),
        "copies": {"path": str(found.output)},
    }
