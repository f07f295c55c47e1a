"""Scores every trial of a part, batch after batch, and keeps what is done, so that a stop costs one batch.

An utterance is its first 64,600 samples, repeated if shorter, as in validation. Batch size and worker processes do not
change a score by more than float rounding (1e-4 is far above it); the same ones give the same bytes, stopped or not.
Several processes share the batches out; the first of them has the files, and they are those that one process writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from models.precision import autocast, log_odds
from training.data.batches import Batch, ValidationBatches
from training.data.reading import read
from training.data.shares import one_batch_each
from training.evaluation.finished_scores import Found, lay_out_again, look_at, origin_path, write_finished
from training.evaluation.origin import Origin
from training.evaluation.partial_scores import PartialScores, partial_path
from training.evaluation.score_layouts import ScoreLayout, score_text
from training.evaluation.scoring_lock import ScoringLock, lock_path
from training.evaluation.subject import Subject
from utils.atomic_files import remove_stray_temporaries, temporaries_in
from utils.console import say
from utils.corpora import CorpusPart
from utils.errors import UserError
from utils.interruption import StopRequest
from utils.progress import progress
from utils.ranks import Alone, Ranks, stop_asked
from utils.regular_files import read_regular
from utils.scores.score_files import read_scores
from utils.table_bytes import bytes_on_disk
from utils.waiting import StopAskedError


def score_part(
    subject: Subject,
    part: CorpusPart,
    output: Path,
    layout: ScoreLayout,
    *,
    origin: Origin,
    stop: StopRequest,
    quiet: bool,
    ranks: Ranks | None = None,
) -> int:
    """Write the scores of all trials to `output` and return how many there are; fewer than all where `stop` came.

    `output` appears only when it is complete, and is left as it is where it has these scores already, but for its
    columns, which become those of `layout`. Raises UserError where another process scores into it, where audio cannot
    be read, where a score is not finite and where the disk refuses.
    """
    ranks = ranks or Alone()
    batches = _Batches(subject, part, ranks, stop)
    if not ranks.is_first:
        batches.help()
        return ranks.broadcast(lambda: 0)
    written = _ScoreFile(subject, part, output, layout, origin, quiet).written(batches)
    batches.end()
    return ranks.broadcast(lambda: written)


@dataclass(frozen=True)
class _ScoreFile:
    """The file that the scores of a part go to, and what stands beside it while they are made."""

    subject: Subject
    part: CorpusPart
    path: Path
    layout: ScoreLayout
    origin: Origin
    quiet: bool

    def written(self, batches: _Batches) -> int:
        """Score what has no score yet, and return how many trials have one."""
        try:
            found = look_at(self.path, self.origin)
            if found and found.is_same:
                self._tell(_recognised(self.path, found))
                self._require_layout()
                self._clear_up()
                return len(self.part.protocol.trials)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ScoringLock(self.path):
                self._remove_strays()
                if found:
                    say(f"{self.path} holds other scores ({found.remark}): they get another name, once these are whole")
                return self._score_all(batches)
        except OSError as error:
            raise UserError(
                f"{error.filename or self.path} cannot be written ({error.strerror or error}): pass another "
                "--eval_output"
            ) from error

    def _tell(self, text: str) -> None:
        if not self.quiet:
            say(text)

    @cached_property
    def _gathered(self) -> PartialScores:
        names = [trial.utterance for trial in self.part.protocol.trials]
        return PartialScores(partial_path(self.path), self.origin.fingerprint, names)

    def _clear_up(self) -> None:
        """Remove what a process left that was killed after it had written all scores, where that can be removed."""
        gathered, beside = self._gathered, self.path.parent
        is_left = any(path.exists() for path in (gathered.path, lock_path(self.path)))
        if not is_left and not any(temporaries_in(beside, of=path.name) for path in _written_for(self.path)):
            return
        with suppress(UserError, OSError), ScoringLock(self.path):  # busy, or in a folder that cannot be written
            self._remove_strays()
            if gathered.found_fingerprint() == gathered.fingerprint:
                gathered.remove()

    def _remove_strays(self) -> None:
        for path in _written_for(self.path):
            remove_stray_temporaries(self.path.parent, of=path.name)

    def _require_layout(self) -> None:
        """Write finished scores again where keys came later, or an earlier version wrote other columns."""
        content = self._text([_score_cell(score) for score in read_scores(self.path).scores.tolist()])
        if bytes_on_disk(content) != read_regular(self.path):
            with ScoringLock(self.path):
                lay_out_again(self.path, content, self.origin, self.subject.sources)
            say(f"{self.path} has the same scores in the columns that the tools of this corpus read now")

    def _text(self, scores: list[str]) -> str:
        return score_text(self.layout, self.part.protocol.trials, scores)

    def _score_all(self, batches: _Batches) -> int:
        gathered, batch_size = self._gathered, self.subject.options.batch_size
        scores, is_foreign = gathered.read(batch_size)
        if is_foreign:
            differing = ", ".join(self.origin.differing(gathered.found_fingerprint()))
            self._tell(f"{gathered.path} is of another {differing}: scoring starts again")
        elif scores:
            self._tell(f"Going on after {len(scores):,} of {len(gathered.names):,} trials, which {gathered.path} has")
        gathered.begin(scores)
        _score_rest(batches, gathered, scores, batch_size)
        if len(scores) == len(gathered.names):
            moved = write_finished(self.path, self._text(scores), self.origin, self.subject.sources)
            gathered.remove()
            if moved:
                say(f"The earlier scores are in {moved}")
            self._tell(f"Wrote {self.path}")
        return len(scores)


def _written_for(output: Path) -> tuple[Path, ...]:
    return output, origin_path(output), partial_path(output)


def _recognised(output: Path, found: Found) -> str:
    how = f", {found.remark}" if found.remark else ""
    return (
        f"{output} has the scores of this checkpoint on these trials already{how}: nothing is scored again "
        "(to do so, remove the file or pass another --eval_output)"
    )


def _score_rest(batches: _Batches, gathered: PartialScores, scores: list[str], batch_size: int) -> None:
    for texts in batches.scored(-(-len(scores) // batch_size)):
        gathered.append(len(scores), texts)
        scores += texts


def _unknown() -> int | None:
    """What one who does not know makes of a broadcast; it is not called."""
    return None


class _Batches:
    """The batches of a part, each scored by one process of several; the first of them says from which one on."""

    def __init__(self, subject: Subject, part: CorpusPart, ranks: Ranks, stop: StopRequest) -> None:
        self._subject, self._part, self._ranks, self._stop = subject, part, ranks, stop
        self._is_begun = False

    def scored(self, first_batch: int) -> Iterator[list[str]]:
        """Yield the scores from a batch on, as text, in the order of the trials; fewer than all where a stop came."""
        self._begin(first_batch)
        yield from self._rounds(first_batch)

    def help(self) -> None:
        """Score, as one that is not the first, what is this one's of that."""
        first_batch: int | None = self._ranks.broadcast(_unknown)
        if first_batch is not None:
            for _ in self._rounds(first_batch):
                pass

    def end(self) -> None:
        """Let the others go on where there was nothing to score."""
        if not self._is_begun:
            self._begin(None)

    def _begin(self, first_batch: int | None) -> None:
        self._is_begun = True
        self._ranks.broadcast(lambda: first_batch)

    def _rounds(self, first_batch: int) -> Iterator[list[str]]:
        options, ranks = self._subject.options, self._ranks
        pin, names = self._subject.device.type == "cuda", [trial.utterance for trial in self._part.protocol.trials]
        batches = ValidationBatches(
            self._part, batch_size=options.batch_size, num_workers=options.num_workers, pin_memory=pin
        )
        try:
            with progress("scoring", batches.num_batches, first_batch) as bar:
                for each in read(batches.steps(one_batch_each(ranks), self._stop, first_batch), ranks):
                    if stop_asked(ranks, self._stop):
                        return
                    own = [_score(self._subject, batch, names) for batch in each.batches]
                    texts = [text for scored in ranks.gather(own) for of_batch in scored for text in of_batch]
                    yield texts
                    bar.advance(len(texts), batches=each.num_batches)
        except StopAskedError:  # what was scored before is in the file
            stop_asked(ranks, self._stop)  # by which signal
        finally:
            batches.close()


def score_waveforms(subject: Subject, waveforms: torch.Tensor) -> list[float]:
    """Return the log-odds, float32, of `waveforms` (batch, samples) at 16 kHz; what is not finite stays so."""
    with torch.inference_mode(), autocast(subject.device, subject.options.precision):
        output = subject.detector.analyse(waveforms.to(subject.device, non_blocking=True))
    values: list[float] = log_odds(output).tolist()
    return values


def _score(subject: Subject, batch: Batch, names: Sequence[str]) -> list[str]:
    """Return the log-odds of a batch as text, enough digits for the float32 that they are; `names` has all trials."""
    values = score_waveforms(subject, batch.waveforms)
    for index, value in zip(batch.indices.tolist(), values, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"the score of {names[index]} is {value}: the checkpoint's weights are not sound "
                "(--validate_checkpoints), or --precision fp32 is needed"
            )
    return [_score_cell(value) for value in values]


def _score_cell(score: float) -> str:
    return f"{score:.9g}"
