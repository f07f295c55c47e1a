"""The table of epochs of the run page, of bounded length: the newest rows, the best epoch, and some of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.checkpoints.rows import EpochMetrics, EpochTime, StepMetrics
from training.reports.page.wording import duration_text, figure, time_text
from training.reports.story import Story
from training.settings.tasks import Figures

NEWEST_ROWS = 200
"""Of epochs and validations within them."""
OLDER_EPOCHS = 100
"""At most, beside the best one: every second, fifth, tenth, and so on."""
NEWEST_SESSIONS = 100


@dataclass(frozen=True)
class EpochRow:
    """A line of the table of epochs. `kind` is "epoch", "step" for a validation within one, "session" for a mark.

    `number` is the epoch, the step or the number of the session, and `name` what the row is called; `cells` follow it,
    and `is_best` marks the best epoch.
    """

    kind: str
    number: int
    name: str
    cells: tuple[str, ...]
    is_best: bool = False


@dataclass(frozen=True)
class EpochTable:
    """The rows, the newest first, and a sentence that says which there are, "" where these are all."""

    rows: tuple[EpochRow, ...]
    shown: str


def epoch_table(story: Story) -> EpochTable:
    """Return the epochs, the validations within them and the places where sessions began.

    However long the run, not many more rows are looked at than are shown.
    """
    history, best = story.history, story.history.best
    newest = sorted([*_newest(history.epochs, 1), *_newest(history.validations, 0)])[-NEWEST_ROWS:]
    epochs = {at for _, is_epoch, at in newest if is_epoch}
    older = range(len(history.epochs) - len(epochs))
    stride = _round_number(-(-len(older) // OLDER_EPOCHS))
    epochs |= set(older[stride - 1 :: stride])
    if best:
        epochs.add(best.epoch - history.epochs[0].epoch)
    rows = [
        ((row.step, 1), _of_epoch(row, history.times[at], history.figures, is_best=row == best))
        for at, row in ((at, history.epochs[at]) for at in epochs)
    ]
    rows += [
        ((step, 0), _within(history.validations[at], history.figures)) for step, is_epoch, at in newest if not is_epoch
    ]
    first = max(1, len(history.sessions) + 1 - NEWEST_SESSIONS)
    for number, session in enumerate(history.sessions[first - 1 :], start=first):
        if number > 1 or session.step:
            name = f"Session {number}: stopped and resumed, {time_text(session.started_at)}"
            rows.append(((session.step, 2), EpochRow("session", number, name, ())))
    rows.sort(key=lambda pair: (pair[0], pair[1].number), reverse=True)
    is_all = len(newest) == len(history.epochs) + len(history.validations)
    return EpochTable(tuple(row for _, row in rows), "" if is_all else _shown(story, stride))


def _newest(rows: Sequence[EpochMetrics] | Sequence[StepMetrics], rank: int) -> list[tuple[int, int, int]]:
    """Return of the last rows the step, the `rank` among rows of one step, and the place in the list."""
    first = max(0, len(rows) - NEWEST_ROWS)
    return [(row.step, rank, at) for at, row in enumerate(rows[first:], first)]


def _shown(story: Story, stride: int) -> str:
    history = story.history
    of = f"{len(history.epochs):,} epochs"
    if history.validations:
        of += f" and {len(history.validations):,} validations within them"
    others = "all epochs before" if stride == 1 else f"every epoch before that is a multiple of {stride}"
    whole = "Every epoch is in training_log.csv" + (
        ", every validation in the TensorBoard file." if history.validations else "."
    )
    return f"Of {of} these are the newest {NEWEST_ROWS}, the best epoch, and {others}. {whole}"


def _round_number(least: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50 and so on that is no less.

    >>> [_round_number(least) for least in (0, 1, 3, 6, 11, 51)]
    [1, 1, 5, 10, 20, 100]
    """
    power = int("1" + "0" * (len(str(max(1, least))) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def _of_epoch(row: EpochMetrics, times: EpochTime, figures: Figures, *, is_best: bool) -> EpochRow:
    cells = (
        f"{row.step:,}",
        *(figure(row[one.name], one.decimals) for one in figures.by_measure),
        f"{row.learning_rate:.4g}",
        duration_text(times.seconds),
        time_text(times.finished_at),
    )
    return EpochRow("epoch", row.epoch, str(row.epoch), cells, is_best)


def _within(row: StepMetrics, figures: Figures) -> EpochRow:
    missing = figure(None)
    cells = (
        f"{row.step:,}",
        *(figure(row.figures.get(one.name), one.decimals) for one in figures.by_measure),
        *(missing, missing, missing),
    )
    return EpochRow("step", row.step, f"in epoch {row.epoch + 1}", cells)
