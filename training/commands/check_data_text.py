"""What --check_data prints: the parts of each corpus in numbers, every fault, and the verdict; as text and as JSON."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from training.data.check import CheckedCorpus, CheckedPart
from training.data.confounds import confounds_of
from training.data.verdict import faults_of, notes_of, overlaps, published_text, summary, would_run
from utils.audio.waveforms import CROP_SAMPLES
from utils.corpora.trials import UNKNOWN, Trial
from utils.terminal_text import lines_text

_SHOWN = 5
_GROUPS_SHOWN = 20
_INDENT = " " * 15
_GLUE = "\x1f:"


def report_text(corpora: Sequence[CheckedCorpus]) -> str:
    """Return the report as it is printed."""
    lines: list[str] = []
    for corpus in corpora:
        lines.append(f"{corpus.found.folder}: {corpus.found.layout} layout")
        if corpus.found.division:
            lines.append(f"  the parts: {corpus.found.division}")
        for part in corpus.parts:
            lines += ["", f"{part.source.name}: {part.scanned.path}", *_part_lines(part)]
        lines.append("")
    for corpus in corpora:
        lines += [
            f"[NOTE] {what} in train and in dev ({len(shared):,}), which makes the EER on dev too good: {_few(shared)}"
            for what, shared in overlaps(corpus).items()
            if shared
        ]
    return lines_text([*lines, summary(corpora)])


def _part_lines(part: CheckedPart) -> list[str]:
    trials = part.scanned.trials
    read = [audio for audio in part.audio if audio and audio.samples]
    rows: list[tuple[str, str]] = []
    if trials:
        rows.append(("utterances", _class_text(trials)))
        published = published_text(part.source.published, trials)
        if published:
            rows.append(("published", published))
        rows += [(title, _groups_text(groups)) for title, groups in _groups(trials).items() if groups]
        speakers = {trial.speaker for trial in trials} - {UNKNOWN}
        rows.append(("speakers", f"{len(speakers):,}" if speakers else "not known"))
    rows += [("taken over", note) for note in part.scanned.notes]
    if read:
        rates = Counter(f"{audio.sample_rate_hz:,} Hz, {_channels_text(audio.channels)}" for audio in read)
        rows.append(("audio read", _groups_text(dict(rates.most_common()))))
        rows.append(("seconds", _durations_text([audio.seconds for audio in read], _num_long(part))))
    if trials:
        rows.append(("not named", f"{part.num_unnamed:,} other audio files in the folder, not used"))
    lines = [line for title, text in rows for line in _row(title, text)]
    for sign, found in (("[ERROR]", faults_of(part)), ("[NOTE]", notes_of(part))):
        for kind, places in found.items():
            lines.append(f"  {sign} {kind} ({len(places):,}): {_few(places)}")
    return lines + [f"  [NOTE] {confound.text}" for confound in confounds_of(part)]


def _row(title: str, text: str) -> list[str]:
    together = text.replace(": ", _GLUE)  # a name and its number stay on one line
    lines = textwrap.wrap(together, 120, initial_indent=f"  {title:<13}", subsequent_indent=_INDENT)
    return [line.replace(_GLUE, ": ") for line in lines]


def _class_text(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.is_bona_fide for trial in trials)
    unknown = f", {counts[None]:,} without a label" if counts[None] else ""
    return f"{len(trials):,}: {counts[True]:,} bona fide, {counts[False]:,} spoof{unknown}"


def _groups(trials: Sequence[Trial]) -> dict[str, dict[str, int]]:
    return {
        "attacks": _counted([trial.attack for trial in trials if trial.is_bona_fide is False], UNKNOWN),
        "codecs": _counted([trial.codec for trial in trials], UNKNOWN),
        "subsets": _counted([trial.subset for trial in trials], ""),
    }


def _counted(names: Sequence[str], unknown: str) -> dict[str, int]:
    """Return how often each name comes, in their order; nothing where none is known."""
    counts = Counter(names)
    return {name or "none": counts[name] for name in sorted(counts)} if set(counts) - {unknown} else {}


def _groups_text(groups: Mapping[str, int]) -> str:
    shown = [f"{name}: {count:,}" for name, count in list(groups.items())[:_GROUPS_SHOWN]]
    more = len(groups) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _channels_text(channels: int) -> str:
    return "mono" if channels == 1 else f"{channels} channels"


def _num_long(part: CheckedPart) -> int:
    return sum(audio.is_longer_than_the_crop for audio in part.audio if audio)


def _durations_text(seconds: Sequence[float], num_long: int) -> str:
    return (
        f"{min(seconds):.2f} shortest, {statistics.median(seconds):.2f} median, {max(seconds):.2f} longest; "
        f"{100 * num_long / len(seconds):.1f} % are longer than {CROP_SAMPLES:,} samples"
    )


def _few(places: Sequence[str]) -> str:
    more = f", and {len(places) - _SHOWN:,} more (--json names all)" if len(places) > _SHOWN else ""
    return ", ".join(places[:_SHOWN]) + more


def report_document(corpora: Sequence[CheckedCorpus]) -> dict[str, Any]:
    """Return the report for --json; `faults` and `notes` name every place."""
    return {
        "would_run": would_run(corpora),
        "can_train": corpora[0].found.can_train,
        "summary": summary(corpora),
        "corpora": [
            {
                "layout": corpus.found.layout,
                "folder": str(corpus.found.folder),
                "division": corpus.found.division or None,
                "in_train_and_dev": overlaps(corpus),
                "parts": [_part_document(part) for part in corpus.parts],
            }
            for corpus in corpora
        ],
    }


def _part_document(part: CheckedPart) -> dict[str, Any]:
    trials = part.scanned.trials
    classes = Counter(trial.is_bona_fide for trial in trials)
    read = [audio for audio in part.audio if audio and audio.samples]
    seconds = [audio.seconds for audio in read]
    return {
        "name": part.source.name,
        "protocol": str(part.scanned.path),
        "trials": len(trials),
        "bona_fide": classes[True],
        "spoof": classes[False],
        "without_label": classes[None],
        "published_trials": part.source.published.total
        if part.source.published and published_text(part.source.published, trials)
        else None,
        **_groups(trials),
        "taken_over": list(part.scanned.notes),
        "speakers": len({trial.speaker for trial in trials} - {UNKNOWN}),
        "files_read": len(read),
        "sample_rates_hz": dict(Counter(audio.sample_rate_hz for audio in read)),
        "channels": dict(Counter(audio.channels for audio in read)),
        "seconds": {"shortest": min(seconds), "median": statistics.median(seconds), "longest": max(seconds)}
        if seconds
        else None,
        "longer_than_64600_samples": _num_long(part),
        "not_named": part.num_unnamed,
        "faults": faults_of(part),
        "notes": notes_of(part),
        "confounds": [asdict(confound) for confound in confounds_of(part)],
    }
