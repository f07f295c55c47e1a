"""--metrics: prints the figures of a score file, whatever wrote it, and draws them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from training.settings.requests import Metrics
from utils.console import say
from utils.json_text import json_text

if TYPE_CHECKING:
    from training.evaluation.score_report import ScoreReport


def run(request: Metrics) -> int:
    """Measure a score file against its keys and print the figures."""
    from training.evaluation.score_report import measure_files  # noqa: PLC0415  (imports NumPy)

    report = measure_files(request.scores, request.keys, request.asv_scores, request.subset, request.label_1)
    print_report(report, request.plots, as_json=request.as_json)
    return 0


def print_report(
    report: ScoreReport, plots: Path | None, *, as_json: bool, facts: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Print the figures of a score file, and draw them into the folder `plots`, if there is one.

    `facts` are what the document has beside the figures.
    """
    from training.evaluation.score_report import report_document, report_text  # noqa: PLC0415  (imports NumPy)

    say(json_text({**report_document(report), **facts}) if as_json else report_text(report))
    if plots:
        from training.evaluation.score_figures import draw_score_figures  # noqa: PLC0415  (imports matplotlib)

        for path in draw_score_figures(report, plots):
            if not as_json:
                say(f"Wrote {path}")
