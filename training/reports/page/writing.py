"""Writes the run page: when training begins, after each epoch and at the end; a disk that refuses costs a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.reports.page.pictures import Heatmaps, newest_heatmaps_folder, read_heatmaps
from training.reports.page.report import report_html
from training.reports.page.story import Story, interrupted_story, story_of
from training.runs.directory import RunDirectory
from training.runs.survey import survey_folder
from training.settings.options import Options
from training.state.train_state import TrainState
from utils.atomic_files import write_text_atomically
from utils.console import say
from utils.errors import UserError


class RunPage:
    """The page of one run, told from its state. `stopped_by` says in words what ended training before its target."""

    def __init__(self, run: RunDirectory, options: Options) -> None:
        self.stopped_by = ""
        self._run = run
        self._options = options
        self._heatmaps: tuple[Path, float, Heatmaps | None] | None = None

    def tell(self, state: TrainState) -> None:
        """Write the page as it is now; what the disk refuses is said, and the next page tries again."""
        story = story_of(state, self._options)
        self.write(interrupted_story(story, self.stopped_by) if self.stopped_by else story)

    def write(self, story: Story) -> None:
        """Write the page of a story."""
        try:
            html = report_html(story, survey_folder(self._run.folder), self._newest_heatmaps(story.epoch))
            write_text_atomically(self._run.report, html)
        except (OSError, UserError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            say(f"[WARNING] {self._run.report} could not be written: {reason}. The next epoch tries again.")

    def _newest_heatmaps(self, epoch: int) -> Heatmaps | None:
        """Return what is drawn already, read once: making small pictures takes longer than all the rest."""
        folder = newest_heatmaps_folder(self._run, epoch)
        if folder is None:
            return None
        changed_at = folder.stat().st_mtime
        if self._heatmaps is None or self._heatmaps[:2] != (folder, changed_at):
            self._heatmaps = (folder, changed_at, read_heatmaps(folder))
        return self._heatmaps[2]


@contextmanager
def run_page(run: RunDirectory, options: Options, state: TrainState) -> Iterator[RunPage]:
    """Yield the page of a run, written now and once more on the way out, also after an error, which it then tells."""
    page = RunPage(run, options)
    page.tell(state)
    try:
        yield page
    except BaseException as error:
        page.stopped_by = "stopped at once" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
        page.tell(state)
        raise
    page.tell(state)


def after_each_epoch(page: RunPage, draw: Callable[[TrainState], None]) -> Callable[[TrainState], None]:
    """Return what follows an epoch: `draw` first, so that the page shows what was drawn."""

    def follow(state: TrainState) -> None:
        draw(state)
        page.tell(state)

    return follow
