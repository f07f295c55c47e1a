"""--check_data: looks through the corpus that training would use, every file of it."""

from __future__ import annotations

from training.settings.requests import CheckData
from utils.console import say
from utils.errors import EXIT_FAILURE
from utils.json_text import json_text


def run(request: CheckData) -> int:
    """Say what is there, missing or broken; fail if training would."""
    from training.commands import check_data_text as told  # noqa: PLC0415  (imports NumPy and soundfile)
    from training.data import check, verdict  # noqa: PLC0415
    from utils.corpora.places import CorpusPlace  # noqa: PLC0415

    place = CorpusPlace(request.corpus or check.demo_corpus(), request.protocols, request.label_1)
    corpora = check.check_data(place, request.num_threads)
    say(json_text(told.report_document(corpora)) if request.as_json else told.report_text(corpora))
    return 0 if verdict.would_run(corpora) else EXIT_FAILURE
