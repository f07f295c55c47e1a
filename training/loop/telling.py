"""What a run tells while it trains: its reports, its pictures, and the mirror that is kept beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from training.checkpoints.examined import examine
from training.checkpoints.frozen_reference import find_frozen
from training.checkpoints.record import CheckpointRecord
from training.planning.plan import Plan
from training.reports.csv_table import CsvTable
from training.reports.mirror_report import MirrorReport
from training.reports.page.writing import RunPage
from training.reports.reporting import Reporter, Reports
from training.reports.story import Moment, Story, story_of
from training.reports.tensorboard_file import TensorBoardFile
from training.reports.wandb_run import WandbRun
from training.runs.directory import logs_folder_of
from training.runs.retention import RetentionPolicy
from training.runs.survey import is_copy
from training.saving.mirror import Mirror
from training.saving.save_times import SaveTimes
from training.settings.wandb import WandbIdentity, refuse_missing_package
from training.state.train_state import TrainState
from training.tasks.task import Task
from utils.console import say
from utils.corpora import CorpusPart
from utils.interruption import StopRequest
from utils.ranks import Ranks


@contextmanager
def mirrored(plan: Plan, ranks: Ranks) -> Iterator[Mirror | None]:
    """Yield the mirror that --mirror asks for, kept up to date beside training; on the way out it is waited for."""
    if not plan.options.mirror or not ranks.is_first:
        yield None
        return
    with Mirror(plan.run.folder, Path(plan.options.mirror), RetentionPolicy.of(plan.options)) as mirror:
        yield mirror
        if not mirror.finish(mirror.waits_s):
            say(
                f"[NOTE] The mirror {mirror.place} has not all of the run: the same command with --auto_resume goes on."
            )
        for line in mirror.news():
            say(line)


@contextmanager
def told(
    plan: Plan,
    task: Task,
    state: TrainState,
    part: CorpusPart,
    ranks: Ranks,
    *,
    mirror: Mirror | None,
    times: SaveTimes,
) -> Iterator[Reports]:
    """Yield the run's reports, told now and once more on the way out, also after an error, which they then tell.

    Of several processes the first tells, and what it is called at W&B is part of the state of all.
    """
    if not ranks.is_first:
        state.wandb = ranks.broadcast(lambda: None)
        yield Reports([], lambda: story_of(state, task))
        return
    goes_on_elsewhere = plan.checkpoint is not None and is_copy(plan.checkpoint)
    wandb = wandb_run_of(plan, state.wandb, goes_on_elsewhere=goes_on_elsewhere)
    if goes_on_elsewhere:
        state.wandb = None  # that run is the other folder's

    def story() -> Story:
        return replace(
            story_of(state, task),
            checkpoints=lambda: _model_files(plan),
            audio_examples=lambda: task.audio_examples(state.networks, part, reports.stop),
            asides=asides,
        )

    def asides() -> list[str]:
        return [text for text in (times.state(time.monotonic()), f"Mirror: {mirror.state}." if mirror else "") if text]

    mirroring = [MirrorReport(mirror)] if mirror else []
    reports = Reports([*reporters(plan, wandb), *mirroring], story, is_new=plan.checkpoint is None)
    reports.tell(Moment.BEGUN)
    if wandb and wandb.is_logging:
        state.wandb = wandb.identity
    if not plan.options.save_wandb_metadata:
        state.wandb = None
    ranks.broadcast(lambda: state.wandb)
    try:
        yield reports
    except BaseException as error:
        reports.interrupted = "stopped at once" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
        raise
    finally:
        reports.end()


def reporters(plan: Plan, wandb: WandbRun | None) -> list[Reporter]:
    """Return what every run tells of itself, and W&B where that was asked for."""
    own: list[Reporter] = [TensorBoardFile(plan.run), CsvTable(plan.run.training_log), RunPage(plan.run)]
    return [*own, wandb] if wandb else own


def draw_due(plan: Plan, task: Task, state: TrainState, part: CorpusPart, *, is_last: bool, stop: StopRequest) -> None:
    """Draw what is due after an epoch; a disk that refuses a picture costs a warning, since it can be drawn later."""
    for folder in task.folders_to_draw(state.epoch, plan.run, is_last=is_last):
        try:
            task.draw(state.networks, part, folder, stop)
        except OSError as error:
            say(f"[WARNING] No attention heatmaps in {folder}: {error.strerror or error}")


def wandb_run_of(plan: Plan, stored: WandbIdentity | None, *, goes_on_elsewhere: bool = False) -> WandbRun | None:
    """Return the run at W&B, gone on with where `stored` names it; None where nobody asked for one."""
    if not plan.options.logs_to_wandb:
        return None
    refuse_missing_package()
    came_from = logs_folder_of(plan.checkpoint.path.parent) if plan.checkpoint else None
    return WandbRun(
        plan.run,
        plan.options,
        stored,
        came_from=came_from,
        left_later=bool(plan.move_aside),
        goes_on_elsewhere=goes_on_elsewhere,
    )


def _model_files(plan: Plan) -> list[Path]:
    """Return the best and the last checkpoint, and the frozen weights that they refer to."""
    found = [path for path in (plan.run.best_checkpoint, plan.run.last_checkpoint) if path.exists()]
    records = [record for record in map(examine, found) if isinstance(record, CheckpointRecord)]
    return [*found, *{find_frozen(record.path, record.frozen) for record in records if record.frozen}]
