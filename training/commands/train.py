"""Training, as a story: look at what is on disk, decide, say so, then do it.

torch is imported only where there is something to train or to draw, so that a refusal is instant.
"""

from __future__ import annotations

from dataclasses import replace

from training.planning.announcements import changes_text, plan_text, reached_text, resume_summary
from training.planning.facts import collect_facts
from training.planning.plan import Plan, Start, decide
from training.settings.requests import Train
from utils.console import say
from utils.ranks import Alone, Ranks


def run(request: Train) -> int:
    """Begin or continue a training and return its exit code."""
    ranks = Alone()
    plan = ranks.broadcast(lambda: decide(request, collect_facts(request)))
    if ranks.is_first:
        announce(plan)
    return carry_out(plan, ranks)


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
        if not plan.undone and not plan.options.visualize_attention:
            return 0
    from training.loop import session  # noqa: PLC0415  (imports torch, 2 s)

    if plan.start is Start.REACHED:
        if plan.undone:
            session.finish(plan)
            plan = replace(plan, opened=None)  # loaded by that
        if plan.options.visualize_attention:
            session.draw_heatmaps(plan)
        return 0
    return session.carry_out(plan, ranks)
