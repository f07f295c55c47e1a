"""What --score tells: a table for people, row by row as files are scored, and a document for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.evaluation.file_scores import FileScore
from training.evaluation.judge import Judge
from training.evaluation.subject import Subject
from utils.audio.finding import FoundAudio
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ
from utils.scores.verdicts import BONA_FIDE, SPOOF
from utils.terminal_text import columns_of, lines_text, padded, printable

_NONE = "-"
_WIDEST_NAME = 100


def head_text(subject: Subject, found: FoundAudio) -> str:
    """Return what is said before anything is scored: with what, and how it decides."""
    lines = [f"Scoring {_files(len(found.files))} with {subject.mean_of}{', '.join(map(str, subject.sources))}"]
    lines += subject.judge.lines()
    lines.append(f"Precision: {subject.precision_text}")
    lines += found.left_out()
    return lines_text(lines)


class ScoreTable:
    """Lays out rows that come one by one; the width of the names is known from the start."""

    def __init__(self, files: Sequence[Path], judge: Judge) -> None:
        widths = [columns_of(printable(str(path))) for path in files]
        self._width = max([4, *(width for width in widths if width <= _WIDEST_NAME)])
        self._judge = judge

    def head(self) -> str:
        """Return the titles of the columns; seconds are those of audio."""
        return self._line("file", "score", "verdict", "seconds")

    def row(self, scored: FileScore) -> str:
        """Return one file as a line, with what is wrong with it or doubtful."""
        name = printable(str(scored.path))
        if scored.score is None:
            return f"{self._line(name, _NONE, _NONE, _NONE)}  {scored.fault}"
        told = verdict(scored, self._judge) or _NONE
        line = self._line(name, f"{scored.score:.4f}", told, f"{scored.seconds:.2f}")
        no_verdict = f"no verdict: {scored.too_little}" if scored.too_little else ""
        return "  ".join([line, *filter(None, [scored.note, no_verdict, self._other_windows(scored)])])

    def _other_windows(self, scored: FileScore) -> str:
        """Return how many windows of a file mean something else than the file, "" where all agree."""
        of_file = verdict(scored, self._judge)
        if of_file is None:
            return ""
        told = [self._judge.verdict(score) for _, score in scored.windows]
        other = SPOOF if of_file == BONA_FIDE else BONA_FIDE
        return f"{told.count(other)} of {len(told)} windows {other}" if other in told else ""

    def _line(self, name: str, score: str, told: str, seconds: str) -> str:
        return f"{padded(name, self._width)}  {score:>9}  {told:<9}  {seconds:>8}"


def summary_text(scored: Sequence[FileScore], num_files: int, judge: Judge) -> str:
    """Return the last line: how many of which verdict, how many without one, and whether it was stopped."""
    counts = Counter(verdict(one, judge) for one in scored if not one.fault)
    failed = sum(bool(one.fault) for one in scored)
    if judge.rule:
        parts = [f"{counts[told]:,} {told}" for told in (BONA_FIDE, SPOOF)]
        parts += [f"{counts[None]:,} without a verdict"] if counts[None] else []
    else:
        parts = [f"{len(scored) - failed:,} scored"]
    parts += [f"{failed:,} not scored"] if failed else []
    seconds = sum(one.seconds for one in scored)
    text = f"{_files(len(scored))}, {seconds:,.2f} s of audio: {', '.join(parts)}"
    return (
        f"Stopped, {num_files - len(scored):,} of {_files(num_files)} left; {text}" if len(scored) < num_files else text
    )


def score_document(subject: Subject, scored: Sequence[FileScore], found: FoundAudio) -> dict[str, Any]:
    """Return all of it as plain values: what scored, how it decides, and each file with its windows.

    `log_likelihood_ratio` is the score through the stored calibration, natural logarithm; that was fitted on utterances
    of one window each, so it is the mean of the windows' ratios. The verdict is bona fide where it is above
    `log_likelihood_ratio_above`, which is where the score is above `threshold`. A file that has too little to hear has
    neither, and `no_verdict` says why.
    """
    return {
        "sources": [str(path) for path in subject.sources],
        "model_type": subject.options.model_type,
        "precision": subject.options.precision,
        **subject.judge.document(),
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "window_samples": CROP_SAMPLES,
        "complete": len(scored) == len(found.files),
        "passed_over": [str(path) for path in found.passed_over],
        "not_followed": [str(path) for path in found.not_followed],
        "dead_links": [str(path) for path in found.dead],
        "files": [_file_document(one, subject.judge) for one in scored],
    }


def _file_document(one: FileScore, judge: Judge) -> dict[str, Any]:
    if one.score is None:
        return {"path": str(one.path), "score": None, "verdict": None, "fault": one.fault}
    return {
        "path": str(one.path),
        "score": one.score,
        "verdict": verdict(one, judge),
        "log_likelihood_ratio": None if one.too_little else judge.llr(one.score),
        "no_verdict": one.too_little or judge.why_not or None,
        "seconds": one.seconds,
        "sound_seconds": one.sound_s,
        "speech_seconds": one.speech_s,
        "note": one.note or None,
        "num_windows": len(one.windows),
        "windows": [{"start_s": start_s, "score": score} for start_s, score in one.windows],
    }


def verdict(scored: FileScore, judge: Judge) -> str | None:
    """Return what a file's score means, None where there is no score, no rule, or too little to hear."""
    return None if scored.too_little else judge.verdict(scored.score)


def _files(number: int) -> str:
    return f"{number:,} file" if number == 1 else f"{number:,} files"
