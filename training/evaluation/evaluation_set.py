"""What --eval does: find detector and trials, score, measure against the keys of the trials, and draw."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.database import database_folder
from training.evaluation.score_report import ScoreReport, measure
from training.evaluation.scoring import score_part
from training.evaluation.subject import Subject, load_subject
from training.settings.name_template import CHECKPOINT_SUFFIXES
from training.settings.options import Options
from training.settings.requests import Evaluate
from utils.console import say
from utils.corpora import CorpusPart, find_evaluation_part
from utils.corpora.trials import UNKNOWN, Trial
from utils.errors import EXIT_USAGE, UserError
from utils.interruption import stop_on_signals
from utils.scores.asv_scores import read_asv_error_rates
from utils.scores.score_files import read_scores
from utils.scores.trial_keys import Factor, TrialKeys, read_keys


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What came of it: the score file, the report (None without keys or when stopped), the exit code."""

    output: Path
    report: ScoreReport | None
    exit_code: int = 0


def evaluate(command: Evaluate) -> Evaluated:
    """Score the evaluation set with the detector that the command names; raises UserError where that is impossible."""
    subject = load_subject(command)
    part = _open_part(subject.options, command.subset)
    output = command.eval_output or _default_output(subject.sources, command.load_checkpoint_type, part)
    _refuse_to_overwrite(output)
    if command.asv_scores:  # what is wrong with it is said now, not after hours of scoring
        read_asv_error_rates(command.asv_scores, part.subset)
    if not command.as_json:
        say(f"Evaluating on {len(part):,} trials of {part.protocol.path} ({part.layout}, subset {part.subset})")
        mean = f"the mean of the weights of {len(subject.sources)} epochs: " if len(subject.sources) > 1 else ""
        say(f"with {mean}{', '.join(map(str, subject.sources))}")
        say(f"Precision: {subject.precision_text}")
    said_beside_json = redirect_stdout(sys.stderr) if command.as_json else nullcontext()
    with stop_on_signals() as stop, said_beside_json:
        num_scored = score_part(subject, part, output, stop, quiet=command.as_json)
    if num_scored < len(part):
        if not command.as_json:
            say(f"Stopped after {num_scored:,} of {len(part):,} trials; the same command goes on from there.")
        return Evaluated(output, None, stop.exit_code)
    if subject.options.visualize_attention and "visualize_attention" in command.given:
        with redirect_stdout(sys.stderr) if command.as_json else nullcontext():
            _draw_heatmaps(subject, part, output)
    keys = _keys_of(part)
    report = measure(read_scores(output), keys, command.asv_scores, part.subset) if keys else None
    return Evaluated(output, report)


def _open_part(options: Options, subset: str | None) -> CorpusPart:
    protocols = Path(options.protocols_path) if options.protocols_path else None
    return find_evaluation_part(database_folder(options.database_path), protocols, options.track, subset)


def _default_output(sources: Sequence[Path], which: str, part: CorpusPart) -> Path:
    of = re.sub(r"[^A-Za-z0-9]+", "_", f"{part.layout} {part.name} {part.subset}").strip("_")
    name = sources[-1].stem
    mean = f"mean_of_{which}_{len(sources)}_to_" if len(sources) > 1 else ""
    return sources[-1].with_name(f"{mean}{name}_scores_{of}.txt")


def _refuse_to_overwrite(output: Path) -> None:
    """Only a score file may have the place that is asked for; it gets another name then."""
    if output.is_dir() or output.name.endswith(CHECKPOINT_SUFFIXES):
        raise UserError(f"--eval_output {output} is no name for a score file: pass one such as scores.txt", EXIT_USAGE)
    if output.exists():
        try:
            read_scores(output)
        except UserError as error:
            raise UserError(
                f"--eval_output {output} exists and is no score file, so it is not replaced: pass another name"
            ) from error


def _keys_of(part: CorpusPart) -> TrialKeys | None:
    """Return the truth about the trials, None where it is not known of each; from the key file, if it is one."""
    trials = part.protocol.trials
    if any(trial.is_bona_fide is None for trial in trials):
        return None
    if part.protocol.path.is_file():
        try:
            keys = read_keys(part.protocol.path)
            chosen = [name for name, is_in in zip(keys.utterances, keys.chosen(part.subset)[1], strict=True) if is_in]
            if chosen == [trial.utterance for trial in trials]:
                return keys
        except UserError:
            pass  # the corpus reads more than keys are read from
    return _keys_from_trials(part, trials)


def _keys_from_trials(part: CorpusPart, trials: Sequence[Trial]) -> TrialKeys:
    factors = {"attack": [trial.attack for trial in trials], "codec": [trial.codec for trial in trials]}
    return TrialKeys(
        path=part.protocol.path,
        format_title=part.layout,
        utterances=tuple(trial.utterance for trial in trials),
        is_bona_fide=np.array([trial.is_bona_fide for trial in trials], dtype=np.bool_),
        subsets=tuple(trial.subset for trial in trials) if part.subset != "all" else None,
        factors=tuple(Factor.of(title, names) for title, names in factors.items() if set(names) != {UNKNOWN}),
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
