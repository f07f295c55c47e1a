"""What --eval does: find detector and trials, score, measure against the keys of the trials, and draw."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.checkpoints.verified_file import VerifiedFile
from training.data.database import corpus_place
from training.evaluation.default_output import default_output
from training.evaluation.origin import Origin, origin_of
from training.evaluation.score_layouts import layout_for
from training.evaluation.score_report import ScoreReport, measure
from training.evaluation.scoring import score_part
from training.evaluation.subject import Subject, load_subject
from training.evaluation.trained_share import TrainedShare, trained_share
from training.settings.name_template import CHECKPOINT_SUFFIXES
from training.settings.requests import Evaluate
from utils.console import say
from utils.corpora import CorpusPart, find_evaluation_part
from utils.corpora.trials import UNKNOWN, Trial
from utils.errors import EXIT_USAGE, UserError
from utils.interruption import stop_on_signals
from utils.labels import Labels
from utils.ranks import Alone, Ranks
from utils.regular_files import is_regular
from utils.scores.asv_scores import read_asv_error_rates
from utils.scores.score_files import ScoreFile, read_scores
from utils.scores.trial_keys import Factor, TrialKeys, read_keys
from utils.terminal_text import lines_text

EVERY_SUBSET = "all"
"""Scored by default: the package of ASVspoof 2021 refuses a score file without every trial of its keys."""
_NO_EVAL = "There is no evaluation part: this is the development part"
_OF_OWN_DEV = (
    "There is no evaluation part, and the rest is for training. The best epoch and the threshold were chosen on "
    "these trials"
)
_NOT_SEEN = ", which were not seen in training"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What came of it: the score file, the report (None without keys or when stopped), the exit code.

    `facts` are what the document of --json says beside the figures: the part, and how much of it was trained on.
    """

    output: Path
    report: ScoreReport | None
    exit_code: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def evaluate(command: Evaluate, ranks: Ranks | None = None, opened: VerifiedFile | None = None) -> Evaluated:
    """Score the evaluation set with the detector that the command names; raises UserError where that is impossible.

    Several processes share its batches out; the first of them alone writes and has the report. `opened` is the
    detector's file, where that was looked at already.
    """
    ranks = ranks or Alone()
    subject = load_subject(command, opened)
    part = _open_part(subject, command.subset or EVERY_SUBSET)
    keys = _keys_of(part, Labels(subject.options.label_1))
    measured = _measured_subset(keys, part, command.subset)
    if measured == EVERY_SUBSET and not _all_have_keys(part):
        keys = None
    share = trained_share(subject, part)
    origin = origin_of(subject, part)
    _refuse_to_score_different_things(ranks, origin)
    output = command.eval_output or default_output(subject, command.load_checkpoint_type, part, origin)
    _refuse_to_overwrite(output)
    if command.asv_scores:  # what is wrong with it is said now, not after hours of scoring
        read_asv_error_rates(command.asv_scores, measured)
    if not command.as_json:
        say(_announcement(subject, part, measured, share))
    said_beside_json = redirect_stdout(sys.stderr) if command.as_json else nullcontext()
    with stop_on_signals(announces=ranks.is_first) as stop, said_beside_json:
        ranks.watch(stop)
        layout = layout_for(part.layout, part.protocol.trials, keys)
        quiet = command.as_json
        num_scored = score_part(subject, part, output, layout, origin=origin, stop=stop, quiet=quiet, ranks=ranks)
    if num_scored < len(part):
        if not command.as_json:
            say(f"Stopped after {num_scored:,} of {len(part):,} trials; the same command goes on from there.")
        return Evaluated(output, None, stop.exit_code)
    if not ranks.is_first:
        return Evaluated(output, None)
    if subject.options.visualize_attention and "visualize_attention" in command.given:
        with redirect_stdout(sys.stderr) if command.as_json else nullcontext():
            _draw_heatmaps(subject, part, output)
    report = None
    if keys:
        scores = _scores_with_keys(read_scores(output), keys)
        report = measure(scores, keys, command.asv_scores, measured).judged_by(subject.judge)
    return Evaluated(output, report, facts={"part": part.name, "trained_on": share.document()})


def _refuse_to_score_different_things(ranks: Ranks, origin: Origin) -> None:
    """Refuse processes of which one sees another checkpoint, other trials or other audio than the first."""
    for index, decisive in enumerate(ranks.gather(origin.decisive)):
        other = [name for name, found in origin.decisive.items() if decisive[name] != found]
        if other:
            raise UserError(
                f"process {index} sees another {', '.join(other)} than process {ranks.index}: all of them need the "
                "same files, in folders that they share, and nobody may change those meanwhile"
            )


def _open_part(subject: Subject, subset: str) -> CorpusPart:
    options = subject.options
    database, protocols, label_1 = corpus_place(options)
    return find_evaluation_part(database, protocols, options.track, subset, _trained_on(subject), label_1=label_1)


def _trained_on(subject: Subject) -> Mapping[str, str]:
    return subject.record.data if subject.record else {}


def _announcement(subject: Subject, part: CorpusPart, measured: str, share: TrainedShare) -> str:
    """Return what is evaluated, the share that was trained on before all else."""
    of = "the development part of " if part.name == "dev" else ""
    lines = [
        share.warning,
        f"Evaluating on {len(part):,} trials of {of}{part.protocol.path} ({part.layout}, {_subsets(part, measured)})",
        _of_dev(subject, part, share) if part.name == "dev" else "",
        f"with {subject.mean_of}{', '.join(map(str, subject.sources))}",
        share.note,
        *part.protocol.notes,
        f"Precision: {subject.precision_text}",
    ]
    return lines_text(line for line in lines if line)


def _of_dev(subject: Subject, part: CorpusPart, share: TrainedShare) -> str:
    if _trained_on(subject).get("dev") != part.protocol.content_sha256:
        return _NO_EVAL
    return _OF_OWN_DEV + (_NOT_SEEN if share.trained == 0 else "")


def _refuse_to_overwrite(output: Path) -> None:
    """Only a score file may have the place that is asked for; it gets another name then."""
    is_taken = os.path.lexists(output) and not is_regular(output)  # by a folder, a pipe or a device, or a link to one
    if is_taken or output.name.endswith(CHECKPOINT_SUFFIXES):
        raise UserError(f"--eval_output {output} is no name for a score file: pass one such as scores.txt", EXIT_USAGE)
    if os.path.lexists(output):
        try:
            read_scores(output)
        except UserError as error:
            raise UserError(
                f"--eval_output {output} exists and is no score file, so it is not replaced: pass another name"
            ) from error


def _keys_of(part: CorpusPart, labels: Labels) -> TrialKeys | None:
    """Return the truth about the trials that have keys, None for none of them; from the key file, if it is one."""
    keyed = [trial for trial in part.protocol.trials if trial.is_bona_fide is not None]
    if not keyed:
        return None
    if is_regular(part.protocol.path):
        try:
            keys = read_keys(part.protocol.path, labels)
            chosen = [name for name, is_in in zip(keys.utterances, keys.chosen(part.subset)[1], strict=True) if is_in]
            if chosen == [trial.utterance for trial in keyed]:
                return keys
        except UserError:
            pass  # the corpus reads more than keys are read from
    return _keys_from_trials(part, keyed)


def _all_have_keys(part: CorpusPart) -> bool:
    return all(trial.is_bona_fide is not None for trial in part.protocol.trials)


def _measured_subset(keys: TrialKeys | None, part: CorpusPart, asked_for: str | None) -> str:
    """Return the subset that the figures are of: that of the flag, else `eval` where there are subsets.

    Raises UserError where the keys do not have it. Trials without a key may lie outside it only.
    """
    if keys is None:
        return part.subset
    name, _ = keys.chosen(asked_for)
    return name


def _subsets(part: CorpusPart, measured: str) -> str:
    return f"subset {part.subset}" + (f", figures of {measured}" if measured != part.subset else "")


def _scores_with_keys(scores: ScoreFile, keys: TrialKeys) -> ScoreFile:
    """Return the scores of those trials that have keys, without keys of its own: it was written with these."""
    known = set(keys.utterances)
    is_known = np.fromiter((name in known for name in scores.utterances), np.bool_, len(scores.utterances))
    names = tuple(name for name in scores.utterances if name in known)
    return replace(scores, utterances=names, scores=scores.scores[is_known], own_keys=None)


def _keys_from_trials(part: CorpusPart, trials: Sequence[Trial]) -> TrialKeys:
    factors = {"attack": [trial.attack for trial in trials], "codec": [trial.codec for trial in trials]}
    return TrialKeys(
        path=part.protocol.path,
        format_title=part.layout,
        utterances=tuple(trial.utterance for trial in trials),
        is_bona_fide=np.array([trial.is_bona_fide for trial in trials], dtype=np.bool_),
        subsets=tuple(trial.subset for trial in trials) if any(trial.subset for trial in trials) else None,
        factors=tuple(Factor.of(title, names) for title, names in factors.items() if set(names) != {UNKNOWN}),
        note="; ".join(part.protocol.notes),
    )


def _draw_heatmaps(subject: Subject, part: CorpusPart, output: Path) -> None:
    from training.tasks.heatmaps import draw_part  # noqa: PLC0415  (matplotlib)

    folder = output.with_name(f"{output.stem}_attention")
    try:
        draw_part(subject.detector, part, subject.options.viz_samples, folder, subject.device)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): pass another --eval_output"
        ) from error
