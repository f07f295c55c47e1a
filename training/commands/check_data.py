"""--check_data: looks through the corpus that training would use, every file of it."""

from __future__ import annotations

from training.settings.requests import CheckData
from utils.console import say
from utils.errors import EXIT_FAILURE
from utils.json_text import json_text


def run(request: CheckData) -> int:
    """Say what is there, missing or broken; fail if training would."""
    from training.data import check, report, verdict  # noqa: PLC0415  (import NumPy and soundfile)

    corpora = check.check_data(request.corpus or check.demo_corpus(), request.protocols, request.num_threads)
    say(json_text(report.report_document(corpora)) if request.as_json else report.report_text(corpora))
    return 0 if verdict.would_run(corpora) else EXIT_FAILURE
