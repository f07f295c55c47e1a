"""--eval: scores an evaluation set with a trained detector and prints the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.commands.metrics import print_report
from training.planning.agreement import refuse_other_commands
from training.settings.requests import Evaluate
from utils.console import say
from utils.json_text import json_text
from utils.ranks import Ranks

if TYPE_CHECKING:
    from training.evaluation.evaluation_set import Evaluated


def run(request: Evaluate, ranks: Ranks) -> int:
    """Score all trials, or go on where an earlier process stopped, and print the figures where there are keys."""
    from training.evaluation.evaluation_set import evaluate  # noqa: PLC0415  (imports torch, 2 s)

    refuse_other_commands(ranks, request)
    done = evaluate(request, ranks)
    if not ranks.is_first:
        return done.exit_code
    if done.report:
        print_report(done.report, request.plots, as_json=request.as_json, facts=done.facts)
    elif not done.exit_code:
        say(_without_figures(done, request.as_json))
    return done.exit_code


def _without_figures(done: Evaluated, as_json: bool) -> str:
    if as_json:
        return json_text({"scores": {"path": str(done.output)}, **done.facts})
    return f"The trials have no keys, so there are no figures: --metrics {done.output} --keys FILE gives them"
