"""--eval: scores an evaluation set with a trained detector, or copies its speech by a vocoder; prints the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.checkpoints.verified_file import VerifiedFile
from training.commands.metrics import print_report
from training.planning.agreement import refuse_other_commands
from training.settings.requests import Evaluate
from training.settings.tasks import VOCODER
from utils.console import say
from utils.json_text import json_text
from utils.ranks import Ranks

if TYPE_CHECKING:
    from training.evaluation.evaluation_set import Evaluated


def run(request: Evaluate, ranks: Ranks) -> int:
    """Score all trials, or go on where an earlier process stopped, and print the figures where there are keys.

    Of a vocoder, print how far what it makes of speech is from that speech; of several processes the first does that.
    """
    from training.evaluation.evaluation_set import evaluate  # noqa: PLC0415  (imports torch, 2 s)
    from training.evaluation.subject import find_subject  # noqa: PLC0415

    refuse_other_commands(ranks, request)
    opened = None if request.average_checkpoints else find_subject(request)
    if opened and (opened.source.options or request.options).task.name == VOCODER.name:
        return _of_vocoder(request, opened) if ranks.is_first else 0
    done = evaluate(request, ranks, opened)
    if not ranks.is_first:
        return done.exit_code
    if done.report:
        print_report(done.report, request.plots, as_json=request.as_json, facts=done.facts)
    elif not done.exit_code:
        say(_without_figures(done, request.as_json))
    return done.exit_code


def _of_vocoder(request: Evaluate, opened: VerifiedFile) -> int:
    from training.evaluation.vocoding import evaluate_vocoder, vocoded_document, vocoded_text  # noqa: PLC0415

    found = evaluate_vocoder(request, opened)
    if found.exit_code:
        return found.exit_code
    say(json_text(vocoded_document(found)) if request.as_json else vocoded_text(found))
    return 0


def _without_figures(done: Evaluated, as_json: bool) -> str:
    if as_json:
        return json_text({"scores": {"path": str(done.output)}, **done.facts})
    return f"The trials have no keys, so there are no figures: --metrics {done.output} --keys FILE gives them"
