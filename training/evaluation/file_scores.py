"""Scores audio files of any length with a detector: windows of all files in batches, results file by file, in order.

A file that one window holds gets the score that --eval gives it, but for the rounding of another batch (1e-6 or so).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from training.evaluation.scoring import score_waveforms
from training.evaluation.subject import Subject
from utils.audio.checking import AudioFault
from utils.audio.reading import UnreadableAudioError
from utils.audio.windows import Window, WindowedAudio, expected_windows
from utils.errors import UserError
from utils.progress import Progress
from utils.ranks import Alone, Ranks
from utils.waiting import Helpers, each_awaited, wait_for

LEAST_SPEECH_S = 0.5
"""For a verdict. A choice: of 679 utterances of real speech, 1 to 12 s long, 4 have less sound than that."""


@dataclass(frozen=True)
class FileScore:
    """What came of a file: the mean of its windows' scores, or what was wrong with it.

    `windows` are pairs (where it begins in seconds, log-odds). `note` says of a file that has a score what makes it
    doubtful, `too_little` why no verdict may be read off it; `fault` why another has none. `sound_s` is how long
    something can be heard, `speech_s` how long speech can.
    """

    path: Path
    seconds: float = 0.0
    windows: tuple[tuple[float, float], ...] = ()
    note: str = ""
    fault: str = ""
    too_little: str = ""
    sound_s: float = 0.0
    speech_s: float = 0.0

    @property
    def score(self) -> float | None:
        """The mean log-odds, higher is bona fide; None for a file with a fault."""
        return None if self.fault else math.fsum(score for _, score in self.windows) / len(self.windows)


@dataclass
class _Reading:
    """A file on its way: `waiting` of its windows are in a batch that is not full yet."""

    audio: WindowedAudio
    windows: list[tuple[float, float]] = field(default_factory=list)
    waiting: int = 0
    is_read: bool = False
    fault: str = ""

    def result(self) -> FileScore:
        bad = next((score for _, score in self.windows if not math.isfinite(score)), None)
        if bad is not None and not self.fault:
            self.fault = f"its score is {bad}: {self._why_not_finite()}"
        if self.fault:
            return FileScore(self.audio.path, fault=self.fault)
        note = _note(self.audio.doubt)
        speech_s = self.audio.speech_s
        return FileScore(
            self.audio.path,
            self.audio.seconds,
            tuple(self.windows),
            note,
            too_little=_too_little(self.audio.peak, speech_s),
            sound_s=self.audio.sound_s,
            speech_s=speech_s,
        )

    def _why_not_finite(self) -> str:
        doubt = self.audio.doubt
        if doubt is not None and doubt[0] is AudioFault.LOUD:
            return f"{doubt[1]}: divide the samples by it"
        return "the weights are not sound, or --precision fp32 is needed"


def _note(doubt: tuple[AudioFault, str] | None) -> str:
    """Return in a few words what is doubtful about a file; silence is a reason of its own, see `_too_little`."""
    if doubt is None or doubt[0] is AudioFault.SILENT:
        return ""
    return f"cut short: {doubt[1]}" if doubt[0] is AudioFault.CUT else doubt[1]


def _too_little(peak: float, speech_s: float) -> str:
    """Return why so much speech allows no verdict, "" where it does."""
    if not peak:
        return "silence: every sample is 0"
    if speech_s < LEAST_SPEECH_S:
        return f"too little speech: {speech_s:.2f} s of it, and a verdict needs {LEAST_SPEECH_S:g} s"
    return ""


def count_windows(files: Sequence[Path]) -> int:
    """Return how many windows the files have, going by their headers."""
    helpers, reading = Helpers(1, "counting"), [Path()]

    def count(_: int) -> int:
        windows = 0
        for reading[0] in files:
            windows += expected_windows(reading[0])
        return windows

    try:
        return wait_for(helpers.do(count), lambda: f"data: reading {reading[0]}")
    finally:
        helpers.close()


def score_files(
    subject: Subject, files: Sequence[Path], progress: Progress, ranks: Ranks | None = None
) -> Iterator[FileScore]:
    """Yield what came of each file, in order, as soon as that is known; at most --batch_size windows are in memory.

    Several processes read all of the files, and each scores one of as many batches; so many are in memory then.
    """
    under_way: deque[_Reading] = deque()
    batch: list[tuple[_Reading, Window]] = []
    round_of = _Round(subject, progress, ranks or Alone())
    for path in files:
        reading = _Reading(WindowedAudio(path))
        under_way.append(reading)
        try:
            for window in each_awaited(reading.audio, partial("data: reading {}".format, path)):
                batch.append((reading, window))
                reading.waiting += 1
                if len(batch) == subject.options.batch_size:
                    round_of.take(batch)
                    batch = []
                    yield from _finished(under_way)
        except UnreadableAudioError as error:
            kept = [(other, window) for other, window in batch if other is not reading]
            reading.fault = error.reason
            reading.waiting -= len(batch) - len(kept)
            batch = kept
        reading.is_read = True
        yield from _finished(under_way)
    if batch:
        round_of.take(batch)
    round_of.end()
    yield from _finished(under_way)


@dataclass
class _Round:
    """Batches that wait until there is one for each process."""

    subject: Subject
    progress: Progress
    ranks: Ranks
    batches: list[list[tuple[_Reading, Window]]] = field(default_factory=list)

    def take(self, batch: list[tuple[_Reading, Window]]) -> None:
        """Take in a batch, and score those there are if they are enough."""
        self.batches.append(batch)
        if len(self.batches) == self.ranks.count:
            self.end()

    def end(self) -> None:
        """Score the batches, each by one process, and add the windows of each to its file."""
        own = self.batches[self.ranks.index : self.ranks.index + 1]
        read = [(str(reading.audio.path), window.start_s) for batch in self.batches for reading, window in batch]
        told = self.ranks.gather((read, [self._scores(batch) for batch in own]))
        for index, (of_process, _) in enumerate(told):
            if of_process != read:
                raise UserError(
                    f"process {index} read other audio than process {self.ranks.index}: all of them need the same "
                    "files, in folders that they share, and nobody may change those meanwhile"
                )
        every_score = [scores for _, of_process in told for scores in of_process]
        for batch, scores in zip(self.batches, every_score, strict=True):
            for (reading, window), score in zip(batch, scores, strict=True):
                reading.windows.append((window.start_s, score))
                reading.waiting -= 1
            self.progress.advance(utterances=len(batch), batches=len(batch))
        self.batches.clear()

    def _scores(self, batch: list[tuple[_Reading, Window]]) -> list[float]:
        return score_waveforms(self.subject, torch.from_numpy(np.stack([window.waveform for _, window in batch])))


def _finished(under_way: deque[_Reading]) -> Iterator[FileScore]:
    while under_way and under_way[0].is_read and not under_way[0].waiting:
        yield under_way.popleft().result()
