"""Training, as a story: look at what is on disk, decide, say so, then do it.

torch is imported only where there is something to train or to draw, so that a refusal is instant.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.checkpoints.examined import UnusableFile
from training.checkpoints.verified_file import NoLongerReadableError
from training.planning.agreement import refuse_other_commands
from training.planning.announcements import changes_text, plan_text, reached_text, resume_summary, untrained_text
from training.planning.decide import decide
from training.planning.facts import Facts, collect_facts
from training.planning.plan import Plan, Start
from training.planning.refusals import changed_data
from training.runs.retention import RetentionPolicy
from training.saving.mirror import END_WAITS_S, Mirror
from training.saving.mirror_restore import restore_from_mirror
from training.settings.requests import AutoResume, Train
from utils.console import say
from utils.errors import EXIT_FAILURE, UserError
from utils.ranks import Ranks


def run(request: Train, ranks: Ranks) -> int:
    """Begin or continue a training and return its exit code.

    Where --auto_resume chose a checkpoint that could be verified and then not be loaded, it chooses again without it.
    """
    refuse_other_commands(ranks, request)
    lost: list[UnusableFile] = []
    while True:
        plan = ranks.broadcast(lambda: decide(request, _facts(request, lost), ranks.count))
        announce(plan)
        try:
            return carry_out(plan, ranks)
        except NoLongerReadableError as error:  # before anything was written
            if not isinstance(request, AutoResume) or plan.checkpoint is None:
                raise
            say(f"[WARNING] {error}: it was whole when it was checked. Looking for an older checkpoint.")
            lost.append(UnusableFile(plan.checkpoint.path, error.reason))


def _facts(request: Train, lost: list[UnusableFile]) -> Facts:
    """Look at the disk, and, where --auto_resume finds something newer in the mirror, once more with that in place."""
    facts = collect_facts(request, lost)
    if not isinstance(request, AutoResume) or not (restored := restore_from_mirror(request, facts)):
        return facts
    lost[:] = [file for file in lost if file.path not in restored]
    return collect_facts(request, lost)


def announce(plan: Plan) -> None:
    """Say what will be done and why, before anything is created, loaded or written."""
    say(plan_text(plan))
    if plan.changes and plan.start is Start.RESUME:
        say(changes_text(plan.changes))
    if plan.start is Start.RESUME:
        say(resume_summary(plan))


def carry_out(plan: Plan, ranks: Ranks) -> int:
    """Do what was announced."""
    if plan.start is Start.REACHED:
        say(reached_text(plan))
        other_data = _other_data(plan)
        for line in other_data:
            say(line)
        code = EXIT_FAILURE if plan.untrained or other_data else 0
        if not ranks.is_first:
            return code
        if not plan.undone:
            _mirror_what_is_there(plan)
            if not plan.options.visualize_attention:
                return code
    from training.loop import finishing, session  # noqa: PLC0415  (imports torch, 2 s)

    if plan.start is Start.REACHED:
        if plan.undone:
            finishing.finish(plan)
            _mirror_what_is_there(plan)
            plan = replace(plan, opened=None)  # loaded by that
        if plan.options.visualize_attention:
            finishing.draw_heatmaps(plan)
        return code
    return session.carry_out(plan, ranks)


def _mirror_what_is_there(plan: Plan) -> None:
    """Complete the mirror of a run that has reached its target, which may have been absent when that was trained."""
    if not plan.options.mirror:
        return
    with Mirror(plan.run.folder, Path(plan.options.mirror), RetentionPolicy.of(plan.options)) as mirror:
        mirror.finish(END_WAITS_S)
        for line in mirror.news():
            say(line)


def _other_data(plan: Plan) -> list[str]:
    """Say which data that were asked for are not those that a run at its target was trained on.

    The corpus of the run may be gone by then, and the demo corpus is the same wherever it is made; a path that the run
    was not given must be readable.
    """
    from training.data.database import corpus_place, demo_to_make  # noqa: PLC0415  (numpy, 0.2 s)
    from utils.corpora import find_corpus  # noqa: PLC0415

    assert plan.checkpoint is not None
    stored, options = plan.checkpoint.options, plan.options
    is_its_own = (stored.database_path, stored.protocols_path) == (options.database_path, options.protocols_path)
    if demo_to_make(options.database_path):
        return []
    try:
        identity = find_corpus(*corpus_place(options), needs_spoofs=options.task.needs_spoofs).identity
    except UserError as error:
        if not is_its_own:
            raise
        say(f"[NOTE] Whether the data are still those of the run could not be seen: {error}")
        return []
    return untrained_text(changed_data(plan.checkpoint, identity), plan.checkpoint.path)
