"""What writing report.html costs the loop after an epoch, in a run folder with 1, 10 and 100 checkpoints of 3.8 GB.

    OMP_NUM_THREADS=1 python -m benchmarks.run_page [FOLDER]

The checkpoints are those of `benchmarks.listing`, mostly holes, in a temporary folder (in FOLDER, if given). A page
shows as many epochs as there are checkpoints, and the 24,844 scores that the dev part of ASVspoof 2019 LA would give.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.listing import OPTIONS, STEPS_PER_EPOCH, make_run
from benchmarks.measuring import machine_text
from training.checkpoints.history import History, UnfinishedEpoch
from training.checkpoints.rows import EpochTime
from training.reports.page.writing import RunPage
from training.reports.story import Story
from training.runs.directory import RunDirectory
from training.runs.survey import survey_folder
from training.settings.tasks import DETECTION
from training.tasks.task import Scores

EPOCHS = (100, 10, 1)
UTTERANCES = 24_844  # of the dev part of ASVspoof 2019 LA
REPEATS = 9


def story_of_folder(run: RunDirectory) -> Story:
    """Return a run whose epochs are those of the checkpoints in its folder."""
    rows = [record.last for record in survey_folder(run.folder).checkpoints if record.last]
    is_bona_fide = torch.arange(UTTERANCES) % 10 == 0
    scores = torch.randn(UTTERANCES, generator=torch.Generator().manual_seed(1)) + 2.0 * is_bona_fide
    history = History(
        DETECTION.figures,
        UnfinishedEpoch(STEPS_PER_EPOCH),
        (("benchmark", 0),),
        epoch=len(rows),
        step=rows[-1].step,
        epochs=rows,
        times=[EpochTime(row.epoch, 1_790_000_000.0 + 1800 * row.epoch, 1750.0) for row in rows],
        training_seconds=1750.0 * len(rows),
    )
    return Story(OPTIONS, history, [Scores(history.step, scores, is_bona_fide)])


def main(where: str | None = None) -> None:
    """Make the files, write each page some times, print the medians."""
    print(machine_text())
    print(f"median of {REPEATS}{'':<19}{'wall':>9}{'processor':>12}{'page':>10}")
    with tempfile.TemporaryDirectory(dir=where) as name:
        os.chdir(name)
        make_run(Path())
        run = RunDirectory.of(OPTIONS)
        for epochs in EPOCHS:
            for path in survey_folder(run.folder).checkpoints[epochs:]:
                path.path.unlink()
            story, page = story_of_folder(run), RunPage(run)
            costs = []
            for _ in range(REPEATS + 1):
                wall, processor = time.perf_counter(), time.process_time()
                page.tell(story)
                costs.append((time.perf_counter() - wall, time.process_time() - processor))
            walls, processors = zip(*costs[1:], strict=True)  # the first one reads the template
            size_kb = run.report.stat().st_size / 1000
            print(
                f"  {epochs:3} epochs and checkpoints{statistics.median(walls) * 1e3:8.0f} ms"
                f"{statistics.median(processors) * 1e3:9.0f} ms{size_kb:7.0f} kB"
            )
        os.chdir("/")


if __name__ == "__main__":
    main(*sys.argv[1:])
