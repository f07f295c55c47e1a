"""Makes the run page: a story and what lies beside it in the run folder into one HTML file that asks for no other."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from training.reports.page.curves import charts_of
from training.reports.page.pictures import Heatmaps
from training.reports.page.score_charts import ScorePictures, score_pictures
from training.reports.page.story import Story
from training.reports.page.tables import checkpoint_rows, environment_rows, epoch_rows, session_rows, setting_groups
from training.reports.page.wording import duration_text, figure, freshness_text, state_text, time_text
from training.runs.survey import RunFolder
from utils.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent


def report_html(story: Story, run: RunFolder, heatmaps: Heatmaps | None, written_at: float | None = None) -> str:
    """Return the page. All text in it is escaped, whatever settings, paths and file names hold."""
    written_at = time.time() if written_at is None else written_at
    state, sentence = state_text(story)
    validation = story.last_validation
    settings = setting_groups(story)
    facts: dict[str, Any] = {
        "story": story,
        "title": run.folder.name if not story.options.experiment else f"{story.options.experiment} {run.folder.name}",
        "folder": str(run.folder),
        "state": state,
        "state_sentence": sentence,
        "written": time_text(written_at),
        "freshness": freshness_text(story, written_at),
        "percent_done": min(100.0, 100 * story.position / story.options.num_epochs),
        "training_time": duration_text(story.training_seconds),
        "num_sessions": max(1, len(story.sessions)),
        "best": story.best,
        "last": story.history[-1] if story.history else None,
        "charts": charts_of(story),
        "epochs": epoch_rows(story),
        "sessions": session_rows(story, run.folder),
        "scores": _scores(story),
        "scores_after": _epochs_text(story.epochs_at(validation.step)) if validation else "",
        "heatmaps": heatmaps,
        "checkpoints": checkpoint_rows(run, story.best),
        "under_way": _under_way(story, run),
        "go_on": _how_to_go_on(state, run),
        "settings": settings,
        "other_than_default": [row for _, rows in settings for row in rows if row.default],
        "environment": environment_rows(story),
        "figure": figure,
    }
    return _template().render(facts)


def _scores(story: Story) -> ScorePictures | None:
    if story.last_validation is None:
        return None
    try:
        return score_pictures(story.last_validation)
    except UserError:  # a validation part of one class, which has no error curve
        return None


def _epochs_text(epochs: float) -> str:
    is_whole = abs(epochs - round(epochs)) < 1e-9
    return f"After epoch {round(epochs)}" if is_whole else f"After {epochs:.2f} epochs"


def _under_way(story: Story, run: RunFolder) -> str:
    """Say that the newest checkpoint was being written while this page was, which training does not wait for."""
    on_disk = run.latest.position if run.latest else (-1, -1)
    if story.interrupted or not story.step or on_disk >= (story.step, story.epoch):
        return ""
    if story.epoch in story.lost_epochs:
        return f"The checkpoint of epoch {story.epoch} is missing: the disk refused it."
    return "The checkpoint of the newest step is not in this list: it was still being written."


def _how_to_go_on(state: str, run: RunFolder) -> str:
    if state != "stopped" or run.latest is None:
        return ""
    return f"python main.py --resume --model_path {run.latest.path}"


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  (0.1 s, and only training needs it)

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    environment.globals["style"] = Markup((_HERE / "report.css").read_text(encoding="utf-8"))
    return environment.from_string((_HERE / "report.html.j2").read_text(encoding="utf-8"))
