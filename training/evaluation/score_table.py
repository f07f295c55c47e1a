"""What --score tells: a table for people, row by row as files are scored, and a document for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evaluation.file_scores import FileScore
from training.evaluation.subject import Subject
from utils.audio.finding import FoundAudio
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ
from utils.scores.calibration import LinearCalibration
from utils.terminal_text import columns_of, padded, printable
from utils.text_tables import few

BONA_FIDE, SPOOF = "bona fide", "spoof"
_NONE = "-"
_WIDEST_NAME = 100


def verdict(score: float | None, threshold: float | None) -> str | None:
    """Return what a score means, None where it or the threshold is not known.

    >>> verdict(0.5, 0.5), verdict(0.6, 0.5), verdict(0.6, None)
    ('spoof', 'bona fide', None)
    """
    if score is None or threshold is None:
        return None
    return BONA_FIDE if score > threshold else SPOOF


def head_text(subject: Subject, found: FoundAudio) -> str:
    """Return what is said before anything is scored: with what, and where the threshold comes from."""
    mean = f"the mean of the weights of {len(subject.sources)} epochs: " if len(subject.sources) > 1 else ""
    lines = [f"Scoring {_files(len(found.files))} with {mean}{', '.join(map(str, subject.sources))}"]
    if subject.decision:
        lines.append(
            f"Threshold: bona fide above {subject.decision.threshold:.6f}, which is that of the EER of validation, "
            f"stored in {subject.sources[0].name}"
        )
    else:
        lines.append(f"Threshold: none, and so no verdict: {subject.why_undecided}")
    lines.append(f"Precision: {subject.precision_text}")
    if found.passed_over:
        names = few([printable(path.name) for path in found.passed_over])
        lines.append(f"Passed over: {_files(len(found.passed_over))} of formats that cannot be read here ({names})")
    return "\n".join(lines)


class ScoreTable:
    """Lays out rows that come one by one; the width of the names is known from the start."""

    def __init__(self, files: Sequence[Path], threshold: float | None) -> None:
        widths = [columns_of(printable(str(path))) for path in files]
        self._width = max([4, *(width for width in widths if width <= _WIDEST_NAME)])
        self._threshold = threshold

    def head(self) -> str:
        """Return the titles of the columns; seconds are those of audio."""
        return self._line("file", "score", "verdict", "seconds")

    def row(self, scored: FileScore) -> str:
        """Return one file as a line, with what is wrong with it or doubtful."""
        name = printable(str(scored.path))
        if scored.score is None:
            return f"{self._line(name, _NONE, _NONE, _NONE)}  {scored.fault}"
        told = verdict(scored.score, self._threshold) or _NONE
        line = self._line(name, f"{scored.score:.4f}", told, f"{scored.seconds:.2f}")
        return "  ".join([line, *filter(None, [scored.note, self._other_windows(scored)])])

    def _other_windows(self, scored: FileScore) -> str:
        """Return how many windows of a file mean something else than the file, "" where all agree."""
        told = [verdict(score, self._threshold) for _, score in scored.windows]
        other = SPOOF if verdict(scored.score, self._threshold) == BONA_FIDE else BONA_FIDE
        return f"{told.count(other)} of {len(told)} windows {other}" if other in told else ""

    def _line(self, name: str, score: str, told: str, seconds: str) -> str:
        return f"{padded(name, self._width)}  {score:>9}  {told:<9}  {seconds:>8}"


def summary_text(scored: Sequence[FileScore], num_files: int, threshold: float | None) -> str:
    """Return the last line: how many of which verdict, how many without a score, and whether it was stopped."""
    counts = Counter(verdict(one.score, threshold) for one in scored if not one.fault)
    parts = [f"{counts[told]:,} {told}" for told in (BONA_FIDE, SPOOF) if threshold is not None]
    failed = sum(bool(one.fault) for one in scored)
    parts += [f"{len(scored) - failed:,} scored"] if threshold is None else []
    parts += [f"{failed:,} not scored"] if failed else []
    seconds = sum(one.seconds for one in scored)
    text = f"{_files(len(scored))}, {seconds:,.2f} s of audio: {', '.join(parts)}"
    return (
        f"Stopped, {num_files - len(scored):,} of {_files(num_files)} left; {text}" if len(scored) < num_files else text
    )


def score_document(subject: Subject, scored: Sequence[FileScore], found: FoundAudio) -> dict[str, Any]:
    """Return all of it as plain values: what scored, how it decides, and each file with its windows.

    `log_likelihood_ratio` is the score through the calibration stored with the threshold, natural logarithm; that was
    fitted on utterances of one window each, so it is the mean of the windows' ratios.
    """
    decision = subject.decision
    calibration = None
    if decision and decision.scale is not None and decision.offset is not None:
        calibration = LinearCalibration(decision.scale, decision.offset)
    threshold = decision.threshold if decision else None
    return {
        "sources": [str(path) for path in subject.sources],
        "model_type": subject.options.model_type,
        "precision": subject.options.precision,
        "threshold": threshold,
        "threshold_from": f"EER of validation, step {decision.step}" if decision else subject.why_undecided,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "window_samples": CROP_SAMPLES,
        "complete": len(scored) == len(found.files),
        "passed_over": [str(path) for path in found.passed_over],
        "files": [_file_document(one, threshold, calibration) for one in scored],
    }


def _file_document(one: FileScore, threshold: float | None, calibration: LinearCalibration | None) -> dict[str, Any]:
    if one.score is None:
        return {"path": str(one.path), "score": None, "verdict": None, "fault": one.fault}
    return {
        "path": str(one.path),
        "score": one.score,
        "verdict": verdict(one.score, threshold),
        "log_likelihood_ratio": float(calibration.llrs(one.score)) if calibration else None,
        "seconds": one.seconds,
        "note": one.note or None,
        "num_windows": len(one.windows),
        "windows": [{"start_s": start_s, "score": score} for start_s, score in one.windows],
    }


def _files(number: int) -> str:
    return f"{number:,} file" if number == 1 else f"{number:,} files"
