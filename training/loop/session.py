"""Carries out a plan, as a story: opens the data, builds the networks, prepares the folder, trains, says the end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from training.loop.opening import facts_of, open_data, task_of
from training.loop.saves import Saves
from training.loop.saving import prepared, save_times, saving
from training.loop.shared_folder import refuse_unshared_folder
from training.loop.starting_state import build, starting_state
from training.loop.taking_over import taken_over
from training.loop.telling import draw_due, mirrored, told
from training.loop.trainer import Trainer
from training.planning.agreement import refuse_differences
from training.planning.announcements import (
    changes_text,
    ended_text,
    stalled_text,
    stopped_text,
    training_text,
    unsaved_text,
)
from training.planning.plan import Plan
from training.planning.refusals import encoded_anew_text, refuse_changed_data
from training.planning.sessions import begin_session, names_trained_on
from training.reports.story import Moment
from training.runs.lock import RunLock
from training.runs.names import CheckpointNames
from training.saving.dead_disk import DeadDiskError
from training.saving.mirror import END_WAITS_S
from training.saving.store import CheckpointStore
from training.settings.changes import Change
from training.settings.wandb import refuse_missing_package
from utils.console import say
from utils.errors import EXIT_FAILURE, UserError
from utils.interruption import stop_on_signals
from utils.machine import (
    differences_that_may_change_bits,
)
from utils.ranks import Ranks


def carry_out(plan: Plan, ranks: Ranks) -> int:
    """Train as planned and return the exit code; nothing in the run folder changes before every check has passed."""
    options = plan.options
    if options.logs_to_wandb:
        refuse_missing_package()
    refuse_unshared_folder(plan.run.folder.parent, ranks)
    task = task_of(plan, ranks)
    task.refuse_missing_packages()
    data = open_data(options, task, ranks)
    refuse_differences(ranks, data.identity)
    changed = _changed_data(plan, data.identity)
    start = build(plan, task, ranks)
    state = starting_state(plan, task, start, data.training.num_batches_per_epoch, ranks)
    facts = facts_of(plan, task, start.built, data)
    if plan.checkpoint:
        differing = differences_that_may_change_bits(plan.checkpoint.metadata, facts.environment)
        if differing:
            say(f"[NOTE] Not the machine or torch of before ({', '.join(differing)}): the last bits may differ.")
    weights, came_from = plan.source.path if plan.source else None, plan.checkpoint.path if plan.checkpoint else None
    session = ranks.broadcast(lambda: begin_session(plan.checkpoint, options, facts.environment, changed, weights))
    state.history.sessions.append(session)
    names = ranks.broadcast(lambda: names_trained_on(data.names, state.history.sessions, came_from or weights))
    lock, times = RunLock(plan.run.lock), save_times(plan, state)
    store = CheckpointStore(plan.run, CheckpointNames.of(options), lock, facts.frozen)
    with (
        closing(data.training),
        closing(data.validation),
        prepared(plan, store, lock, start.payload, state.history, names=names, ranks=ranks) as held,
        mirrored(plan, ranks) as mirror,
        told(plan, task, state, data.validation_part, ranks, mirror=mirror, times=times) as reports,
        stop_on_signals(announces=ranks.is_first) as stop,
        saving(plan, store, state, task.device, names, stop=stop, ranks=ranks) as (saver, committer),
    ):
        reports.stop = stop
        ranks.watch(stop)
        saves = Saves(state, facts, saver, committer, reports, came_from, ranks, times)
        trainer = Trainer(
            state=state,
            task=task,
            training=data.training,
            validation=data.validation,
            saves=saves,
            reports=reports,
            facts=facts,
            stop=stop,
            draw=lambda is_last: draw_due(plan, task, state, data.validation_part, is_last=is_last, stop=stop),
            ranks=ranks,
            take_over=lambda: taken_over(ranks, lambda: held.enter_context(lock), plan.run.folder, committer, state),
        )
        del start  # what its payload holds was copied into the state
        say(training_text(options, state, facts.environment, ranks.count))
        try:
            trainer.train()
        except DeadDiskError as error:  # nothing that comes below may wait for that disk, too
            saves.leave_dead_disk(error, stop.exit_code)
        if stop.signal is not None and not trainer.is_done:
            reports.interrupted = f"by {stop.signal.name}"
        left_to_draw = trainer.is_done and ranks.broadcast(lambda: trainer.left_to_draw)
        if trainer.is_done and not saves.not_saved:
            reports.tell(Moment.COMPLETED)
            if mirror:
                mirror.waits_s = END_WAITS_S
    if saves.not_saved:
        raise UserError(unsaved_text(saves.not_saved, saves.last_saved), stop.exit_code or EXIT_FAILURE)
    history = state.history
    if not trainer.is_done:
        assert stop.signal is not None
        say(stopped_text(stop.signal.name, history.epoch, history.under_way.batches_done, saves.last_saved))
        return stop.exit_code
    if history.epoch < options.num_epochs:
        say(stalled_text(history, history.figures.first, options.patience))
    say(ended_text(history, plan.run.best_checkpoint))
    return stop.exit_code if left_to_draw else 0


def _changed_data(plan: Plan, found: Mapping[str, str]) -> tuple[Change, ...]:
    """Return, and say, what of the data is not what the checkpoint was trained on."""
    if plan.checkpoint is None:
        return ()
    changed = refuse_changed_data(plan.checkpoint, found, accepts_audio=plan.accepts_changed_audio)
    if told := changes_text(changed) if changed else encoded_anew_text(plan.checkpoint, found):
        say(told)
    return changed
