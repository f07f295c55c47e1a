"""Writes the run page: when training begins, after each epoch and at the end, also after an error."""

from __future__ import annotations

from pathlib import Path

from training.reports.page.pictures import Heatmaps, newest_heatmaps_folder, read_heatmaps
from training.reports.page.rendering import report_html
from training.reports.page.thinning import Seen
from training.reports.story import Moment, Story
from training.runs.directory import RunDirectory
from training.runs.known_files import KnownFiles
from training.runs.survey import survey_folder
from utils.atomic_files import write_text_atomically


class RunPage:
    """The page of one run."""

    moments = frozenset({Moment.BEGUN, Moment.EPOCH_DRAWN, Moment.ENDED})

    def __init__(self, run: RunDirectory) -> None:
        self.place = run.report
        self._run = run
        self._seen = Seen()
        self._known = KnownFiles()
        self._heatmaps: tuple[Path, float, Heatmaps | None] | None = None

    def tell(self, story: Story) -> None:
        """Write the page, whole or not at all; raises OSError, and UserError where the run folder cannot be read."""
        heatmaps = self._newest_heatmaps(story.history.epoch)
        found = survey_folder(self._run.folder, self._known)
        write_text_atomically(self.place, report_html(story, found, heatmaps, seen=self._seen))

    def close(self) -> None:
        """Nothing is open."""

    def _newest_heatmaps(self, epoch: int) -> Heatmaps | None:
        """Return what is drawn already, read once: making small pictures takes longer than all the rest."""
        folder = newest_heatmaps_folder(self._run, epoch)
        if folder is None:
            return None
        changed_at = folder.stat().st_mtime
        if self._heatmaps is None or self._heatmaps[:2] != (folder, changed_at):
            self._heatmaps = (folder, changed_at, read_heatmaps(folder))
        return self._heatmaps[2]
