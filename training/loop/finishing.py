"""What a run that has reached its target may still lack, done without training: leftovers and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from training.checkpoints.verified_file import open_verified
from training.loop.opening import open_corpus, task_of
from training.loop.preparation import prepare_folder
from training.loop.saving import cannot_write
from training.loop.starting_state import refusing_odd, trained_networks
from training.loop.telling import reporters, wandb_run_of
from training.planning.plan import Plan, Start
from training.reports.reporting import Reports
from training.reports.story import Moment, story_in
from training.runs.lock import RunLock
from training.runs.names import CheckpointNames
from training.runs.retention import left_to_prune
from training.runs.survey import survey_folder
from training.saving.commit import prune
from training.saving.store import CheckpointStore, load_payload
from training.settings.wandb import WandbIdentity
from training.tasks.registry import make_task
from utils.console import say
from utils.errors import UserError
from utils.ranks import Alone
from utils.waiting import NEVER


def finish(plan: Plan) -> None:
    """Do what a killed process left undone in the folder of a run that has reached its target, and train nothing."""
    assert plan.checkpoint is not None
    payload = load_payload(plan.opened or open_verified(plan.checkpoint.path))
    lock = RunLock(plan.run.lock)
    store = CheckpointStore(plan.run, CheckpointNames.of(plan.options), lock)
    with refusing_odd(plan.checkpoint.path):
        story = story_in(payload, make_task(plan.options, torch.device("cpu")))
    try:
        with lock:
            prepare_folder(replace(plan, start=Start.RESUME), store, payload)
            found = survey_folder(plan.run.folder).checkpoints
            for warning in prune(left_to_prune(found, plan.checkpoint, plan.options), plan.checkpoint.path):
                say(f"[WARNING] {warning}.")
            wandb = wandb_run_of(plan, WandbIdentity.in_payload(payload))
            reports = Reports(reporters(plan, wandb), lambda: story)
            reports.tell(Moment.BEGUN)
            reports.end()
    except OSError as error:
        raise cannot_write(plan, error) from error


def draw_heatmaps(plan: Plan) -> None:
    """Draw the attention of the plan's checkpoint, beside it, without training.

    Of a run's newest checkpoint that is what is due after the last epoch: a run that was killed while it drew that has
    all pictures in the end.
    """
    checkpoint = plan.checkpoint
    assert checkpoint is not None
    task, beside = task_of(plan, Alone()), checkpoint.path.parent
    networks = trained_networks(plan, task)
    part = open_corpus(plan.options, Alone()).dev
    newest = survey_folder(beside).latest
    folders: Sequence[Path] = [plan.run.attention_folder(checkpoint.epoch)]
    if newest is None or newest.position == checkpoint.position:
        folders = task.folders_to_draw(checkpoint.epoch, plan.run, is_last=True)
    for folder in (beside / folder.name for folder in folders):
        try:
            task.draw(networks, part, folder, NEVER)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}): mend that and try again"
            ) from error
