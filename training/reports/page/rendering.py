"""Makes the run page: a story and what lies beside it in the run folder into one HTML file that asks for no other."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from training.checkpoints.rows import EpochMetrics
from training.reports.page.curves import charts_of, thinning_text
from training.reports.page.epoch_table import epoch_table
from training.reports.page.pictures import Heatmaps
from training.reports.page.score_charts import ScorePictures, score_pictures
from training.reports.page.spectrograms import spectrogram_pictures
from training.reports.page.tables import (
    checkpoint_rows,
    environment_rows,
    named_checkpoints,
    session_rows,
    setting_groups,
)
from training.reports.page.thinning import Seen
from training.reports.page.wording import (
    duration_text,
    figure,
    freshness_text,
    heading,
    state_text,
    time_text,
    with_unit,
)
from training.reports.story import Story
from training.runs.reproduction import how_to_repeat, what_differs
from training.runs.survey import RunFolder
from training.tasks.task import Scores, Spectrogram
from utils.errors import UserError
from utils.shell_text import with_path
from utils.terminal_text import printable_text

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent


def report_html(
    story: Story,
    run: RunFolder,
    heatmaps: Heatmaps | None,
    written_at: float | None = None,
    seen: Seen | None = None,
) -> str:
    """Return the page. All text in it is escaped and without control characters, whatever settings and names hold.

    `seen` is what earlier pages of the same run looked at, which this one need not look at again.
    """
    written_at = time.time() if written_at is None else written_at
    seen = Seen() if seen is None else seen
    state, sentence = state_text(story)
    history, figures = story.history, story.history.figures
    scores = next((one for one in story.exhibits if isinstance(one, Scores)), None)
    settings = setting_groups(story)
    facts: dict[str, Any] = {
        "story": story,
        "title": run.folder.name if not story.options.experiment else f"{story.options.experiment} {run.folder.name}",
        "folder": str(run.folder),
        "state": state,
        "state_sentence": sentence,
        "written": time_text(written_at),
        "freshness": freshness_text(story, written_at),
        "history": history,
        "percent_done": min(100.0, 100 * history.position / story.options.num_epochs),
        "training_time": duration_text(history.training_seconds),
        "num_sessions": max(1, len(history.sessions)),
        "deciding_heading": heading(figures.first),
        "best_in_title": with_unit(figures.first, history.best[figures.first.name]) if history.best else "",
        "tiles": [_tile("Best", story, history.best), _tile("Last", story, history.last)],
        "columns": [heading(figure) for figure in figures.by_measure],
        "charts": charts_of(story, seen),
        "thinning": thinning_text(seen),
        "epochs": epoch_table(story),
        "sessions": session_rows(story, run.folder),
        "scores": _pictures(scores) if scores else None,
        "scores_after": _epochs_text(history.epochs_at(scores.step)) if scores else "",
        "heatmaps": heatmaps,
        "spectrograms": spectrogram_pictures([one for one in story.exhibits if isinstance(one, Spectrogram)]),
        "checkpoints": checkpoint_rows(run, story),
        "num_checkpoints": len(named_checkpoints(run)),
        "under_way": _under_way(story, run),
        "differing": what_differs(history, story.options),
        "how_to_repeat": how_to_repeat(history, story.options),
        "go_on": _how_to_go_on(state, run),
        "settings": settings,
        "other_than_default": [row for _, rows in settings for row in rows if row.default],
        "environment": environment_rows(story),
        "figure": figure,
    }
    return printable_text(_template().render(facts))


def _tile(which: str, story: Story, row: EpochMetrics | None) -> tuple[str, str, str]:
    """Return title, value and what stands below it: the figure that decides, and those that break its ties."""
    first, *others = story.history.figures.ranking
    title = f"{which} validation {first.short}"
    if row is None:
        return title, figure(None), "no epoch yet"
    beside = ", ".join(f"{one.short} {with_unit(one, row[one.name])}" for one in others)
    return title, with_unit(first, row[first.name]), f"epoch {row.epoch}{f', {beside}' if beside else ''}"


def _pictures(scores: Scores) -> ScorePictures | None:
    try:
        return score_pictures(scores)
    except UserError:  # a validation part of one class, which has no error curve
        return None


def _epochs_text(epochs: float) -> str:
    is_whole = abs(epochs - round(epochs)) < 1e-9
    return f"After epoch {round(epochs)}" if is_whole else f"After {epochs:.2f} epochs"


def _under_way(story: Story, run: RunFolder) -> str:
    """Say that the newest checkpoint was being written while this page was, which training does not wait for."""
    on_disk = run.latest.position if run.latest else (-1, -1)
    history = story.history
    if story.interrupted or not history.step or on_disk >= (history.step, history.epoch):
        return ""
    if history.epoch in history.lost_epochs:
        return f"The checkpoint of epoch {history.epoch} is missing: the disk refused it."
    return "The checkpoint of the newest step is not in this list: it was still being written."


def _how_to_go_on(state: str, run: RunFolder) -> str:
    if state != "stopped" or run.latest is None:
        return ""
    return f"python main.py --resume {with_path('--model_path', run.latest.path)}"


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  (0.1 s, and only training needs it)

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.globals["style"] = Markup((_HERE / "report.css").read_text(encoding="utf-8"))
    return environment.from_string((_HERE / "report.html.j2").read_text(encoding="utf-8"))
