"""What --metrics tells about a score file: read it and its keys, measure, and say it as text, JSON and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.evaluation.judge import Judge, rates_text
from utils.labels import Labels
from utils.scores.asv_scores import read_asv_error_rates
from utils.scores.error_curve import ErrorCurve, ScoredTrials, error_curve
from utils.scores.metrics import ErrorRates, error_rates_above
from utils.scores.score_files import JoinedScores, ScoreFile, join_scores, read_scores
from utils.scores.score_metrics import GroupMetrics, PooledMetrics, group_metrics, pooled_metrics
from utils.scores.tandem_cost import DEFAULT_ASV_RATES
from utils.scores.trial_keys import TrialKeys, read_keys
from utils.terminal_text import lines_text

_DEFAULT_ASV = "of ASVspoof 5, the default (--asv_scores FILE takes others; t-DCFs on different rates do not compare)"


@dataclass(frozen=True, eq=False)
class ScoreReport:
    """A score file measured against its keys; `groups` by the title of what divides the trials (attack, codec).

    `judge` is that of the detector which scored, None where it is not known.
    """

    scores: ScoreFile
    keys: TrialKeys
    asv_path: Path | None
    joined: JoinedScores
    trials: ScoredTrials
    curve: ErrorCurve
    pooled: PooledMetrics
    groups: Mapping[str, tuple[GroupMetrics, ...]]
    judge: Judge | None = None

    def judged_by(self, judge: Judge) -> ScoreReport:
        """Return the report with the verdicts of a detector and what they are worth on these trials."""
        return replace(self, judge=judge)

    @property
    def errors_of_verdicts(self) -> ErrorRates | None:
        """Both error rates of the verdicts on these trials, None where there are none."""
        rule = self.judge.rule if self.judge else None
        return error_rates_above(self.trials, rule.threshold) if rule else None


def measure_files(
    scores_path: Path, keys_path: Path | None, asv_path: Path | None, subset: str | None, label_1: str | None = None
) -> ScoreReport:
    """Read the files and measure; without `keys_path` the score file must hold its keys, without `asv_path` the ASV
    error rates are the default ones. `label_1` is the class that keys of 0 and 1 write as 1.

    Raises UserError for what is wrong with the files or cannot be computed from them.
    """
    labels = Labels(label_1)
    keys = read_keys(keys_path, labels) if keys_path else None
    return measure(read_scores(scores_path, labels), keys, asv_path, subset)


def measure(scores: ScoreFile, keys: TrialKeys | None, asv_path: Path | None, subset: str | None) -> ScoreReport:
    """Measure what was read already; see `measure_files`."""
    joined = join_scores(scores, keys, subset)
    trials = ScoredTrials.of(joined.scores, joined.is_bona_fide, f"the EER of {scores.path}")
    curve = error_curve(trials)
    used = keys or scores.own_keys
    assert used is not None  # join_scores refuses otherwise
    why_no_asv = "" if asv_path else used.why_no_asv
    default = None if why_no_asv else DEFAULT_ASV_RATES
    asv = read_asv_error_rates(asv_path, joined.subset) if asv_path else default
    return ScoreReport(
        scores=scores,
        keys=used,
        asv_path=asv_path,
        joined=joined,
        trials=trials,
        curve=curve,
        pooled=pooled_metrics(trials, curve, asv, why_no_asv),
        groups={factor.title: group_metrics(joined, factor) for factor in joined.factors},
    )


def report_text(report: ScoreReport) -> str:
    """Return the report as lines: what was read, the pooled figures, and a table per factor."""
    parts = [[*_source_lines(report), ""], _pooled_lines(report), _tandem_lines(report), _verdict_lines(report)]
    parts += [["", *_table_lines(title, groups)] for title, groups in report.groups.items() if _tells(title, groups)]
    return lines_text(line for part in parts for line in part)


def report_document(report: ScoreReport) -> dict[str, Any]:
    """Return the report as a document; rates and costs are fractions, EERs percent, what is not defined is null."""
    pooled = report.pooled
    errors = report.errors_of_verdicts
    verdicts = {
        **(report.judge.document() if report.judge else {}),
        "miss_rate": errors.miss_rate if errors else None,
        "false_alarm_rate": errors.false_alarm_rate if errors else None,
    }
    return {
        "scores": {"path": str(report.scores.path), "format": report.scores.format_title},
        "keys": {
            "path": str(report.keys.path),
            "format": report.keys.format_title,
            "labels": report.keys.note or None,
        },
        "subset": report.joined.subset,
        "left_out": report.joined.num_left_out,
        "bona_fide": pooled.num_bona_fide,
        "spoof": pooled.num_spoof,
        "eer_percent": pooled.eer.eer_percent,
        "eer_threshold": pooled.eer.threshold,
        "flipped_eer_percent": pooled.flipped_eer_percent,
        "asv": {"path": report.asv_path and str(report.asv_path), **asdict(pooled.asv)} if pooled.asv else None,
        "min_tdcf_legacy": pooled.min_tdcf_legacy,
        "min_tdcf_revised": pooled.min_tdcf_revised,
        "why_no_tdcf": pooled.why_no_tdcf or None,
        "min_dcf": asdict(pooled.min_dcf),
        "actual_dcf": asdict(pooled.actual_dcf),
        "cllr_bits": pooled.cllr_bits,
        "min_cllr_bits": pooled.min_cllr_bits,
        "verdicts": verdicts if report.judge else None,
        "groups": {title: [asdict(group) for group in groups] for title, groups in report.groups.items()},
    }


def _source_lines(report: ScoreReport) -> list[str]:
    joined, pooled = report.joined, report.pooled
    left_out = f"; {joined.num_left_out:,} scores of other subsets left out" if joined.num_left_out else ""
    return [
        f"Scores: {report.scores.path}, {len(report.scores.utterances):,} lines, {report.scores.format_title}",
        f"Keys: {report.keys.path}, {len(report.keys.utterances):,} trials, {report.keys.format_title}",
        *([f"  {report.keys.note}"] if report.keys.note else []),
        f"Subset: {joined.subset}, {pooled.num_bona_fide:,} bona fide and {pooled.num_spoof:,} spoof{left_out}",
    ]


def _pooled_lines(report: ScoreReport) -> list[str]:
    pooled = report.pooled
    lines = [f"EER: {pooled.eer.eer_percent:.6f} %", f"EER threshold: {pooled.eer.threshold:.6f}"]
    is_own = report.judge is not None  # a detector of ours has the right sign, however badly it scores
    if pooled.flipped_eer_percent is not None and not is_own:
        lines.append(
            "EER above 50 %: the sign of the scores looks flipped (higher must be bona fide); "
            f"with the sign turned, the EER would be {pooled.flipped_eer_percent:.6f} %"
        )
    return [
        *lines,
        f"minDCF (ASVspoof 5): {pooled.min_dcf.cost:.6f}, at {pooled.min_dcf.threshold:.6f}",
        f"actDCF (ASVspoof 5): {pooled.actual_dcf.cost:.6f}, at {pooled.actual_dcf.threshold:.6f}, "
        "the scores read as log-likelihood ratios",
        f"Cllr: {pooled.cllr_bits:.6f} bits, the scores read as log-likelihood ratios",
        f"minCllr: {pooled.min_cllr_bits:.6f} bits, at best under any rising function of the scores",
    ]


def _tandem_lines(report: ScoreReport) -> list[str]:
    pooled, asv = report.pooled, report.pooled.asv
    if asv is None or pooled.min_tdcf_legacy is None or pooled.min_tdcf_revised is None:
        return [f"min t-DCF: none, {pooled.why_no_tdcf}"]
    source = f"from {report.asv_path}, at the threshold of its EER" if report.asv_path else _DEFAULT_ASV
    return [
        f"min t-DCF (legacy, 2019): {pooled.min_tdcf_legacy:.6f}",
        f"min t-DCF (revised, 2021): {pooled.min_tdcf_revised:.6f}",
        f"  on ASV error rates {source}:",
        f"  targets missed {asv.miss_rate:.6f}, nontargets accepted {asv.false_alarm_rate:.6f}, "
        f"spoof accepted {asv.spoof_false_alarm_rate:.6f}",
    ]


def _verdict_lines(report: ScoreReport) -> list[str]:
    errors = report.errors_of_verdicts
    here = [f"  on these trials: {rates_text(errors)}"] if errors else []
    return [*report.judge.lines(), *here] if report.judge else []


def _tells(title: str, groups: Sequence[GroupMetrics]) -> bool:
    """A single codec says nothing that the pooled figures do not say; a single attack has a name worth telling."""
    return len(groups) > 1 or (title == "attack" and len(groups) == 1)


def _table_lines(title: str, groups: Sequence[GroupMetrics]) -> list[str]:
    rows = [
        (
            group.name,
            f"{group.num_bona_fide:,}",
            f"{group.num_spoof:,}",
            "-" if group.eer_percent is None else f"{group.eer_percent:.3f}",
            "-" if group.min_dcf is None else f"{group.min_dcf:.4f}",
        )
        for group in groups
    ]
    head = (title, "bona fide", "spoof", "EER %", "minDCF")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in [head, *rows]
    ]
    has_gap = any(group.eer_percent is None for group in groups)
    return [*lines, *(["-: not defined, the group has one class only"] if has_gap else [])]
