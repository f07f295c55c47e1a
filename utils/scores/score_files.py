"""Score files as the challenges and the published detectors write them, and the joining of scores with keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.corpora.trial_columns import headed_columns
from utils.errors import UserError
from utils.labels import Labels, looks_like_label
from utils.scores.error_curve import Numbers
from utils.scores.trial_keys import Factor, TrialKeys, keys_of, unique_names
from utils.text_tables import NUMBER_RULE, TextTable, few, is_number, plain_number, read_table

_ID_NAMES = ("filename", "file_name", "file", "path", "utterance")
_SCORE_NAMES = ("cm-score", "cm_score", "score")
_ADVICE = "check --metrics"
_NO_DIGITS = Labels()


@dataclass(frozen=True, eq=False)
class ScoreFile:
    """A score file: `utterances` without audio suffixes, each once, and their `scores`, finite; higher is bona fide.

    `own_keys` are those that the file itself holds (ASVspoof 2019), None for other formats.
    """

    path: Path
    format_title: str
    utterances: tuple[str, ...]
    scores: Numbers
    own_keys: TrialKeys | None = None


@dataclass(frozen=True, eq=False)
class JoinedScores:
    """Scores and truth of the chosen trials, `(trials,)` each, in the order of the keys.

    `num_left_out` counts the scores of trials in other subsets than `subset`, which were not used.
    """

    subset: str
    scores: Numbers
    is_bona_fide: NDArray[np.bool_]
    factors: tuple[Factor, ...]
    num_left_out: int


def read_scores(path: Path, labels: Labels = _NO_DIGITS) -> ScoreFile:
    """Read a score file; its format is found by its content, and `labels` reads the labels that it may hold.

    * `utterance score` (ASVspoof 2021), divided by spaces or tabs;
    * `utterance attack key score` (ASVspoof 2019, AASIST, RawGAT-ST);
    * with the header `filename cm-score`, divided by tabs (ASVspoof 5) or commas, and `label` if it holds its keys.

    Raises UserError, naming file and line, for what cannot be understood, for scores that are no finite numbers, and
    for utterances that come twice.
    """
    table = read_table(path, "score", _ADVICE, (*_ID_NAMES, *_SCORE_NAMES), _is_known_row)
    utterance, score, title = _columns(table)
    scores = np.array(table.parsed(score, plain_number, NUMBER_RULE), dtype=np.float64)
    has_keys = headed_columns(table.header) is not None if table.header else len(table.columns) == 4
    own_keys = keys_of(table, labels) if has_keys else None
    return ScoreFile(path, title, unique_names(table, utterance), scores, own_keys)


def _columns(table: TextTable) -> tuple[int, int, str]:
    """Return the columns of utterance and score, and what the format is called."""
    if table.header:
        utterance, score = table.named(_ID_NAMES), table.named(_SCORE_NAMES)
        if utterance is not None and score is not None:
            return utterance, score, f"table with the header `{' '.join(table.header)}`"
    elif len(table.columns) == 2:
        return 0, 1, "`utterance score` (ASVspoof 2021)"
    elif len(table.columns) == 4 and looks_like_label(table.columns[2][0]):
        return 0, 3, "`utterance attack key score` (ASVspoof 2019)"
    raise UserError(
        f"{table.path}, line {table.line_numbers[0]}: this is no score file that is known, found "
        f"{len(table.columns)} columns (`{' '.join(table.header) or table.first_line()}`): "
        "pass lines `utterance score` or `utterance attack key score`, or a table with the header `filename cm-score`"
    )


def _is_known_row(cells: Sequence[str]) -> bool:
    return (len(cells) == 2 or (len(cells) == 4 and looks_like_label(cells[2]))) and is_number(cells[-1])


def join_scores(scores: ScoreFile, keys: TrialKeys | None, subset: str | None = None) -> JoinedScores:
    """Give every trial of `subset` its score; `keys` may be None where the score file holds its own.

    As in the official packages, every trial of the keys in that subset needs a score, and every score must belong to a
    trial of the keys; unlike in that of 2021, trials of other subsets need none. Keys in the score file must not
    contradict `keys`. Raises UserError with counts and names otherwise.
    """
    truth = keys or scores.own_keys
    if truth is None:
        raise UserError(f"{scores.path} ({scores.format_title}) does not say which trials are spoof: pass --keys FILE")
    name, chosen = truth.chosen(subset)
    line_of = {utterance: line for line, utterance in enumerate(scores.utterances)}
    lines = np.fromiter((line_of.get(utterance, -1) for utterance in truth.utterances), np.int64, chosen.size)
    _require_the_same_trials(scores, truth, name, chosen, lines >= 0)
    if keys and scores.own_keys:
        _require_agreement(scores.path, scores.own_keys, keys, lines)
    return JoinedScores(
        subset=name,
        scores=scores.scores[lines[chosen]],
        is_bona_fide=truth.is_bona_fide[chosen],
        factors=tuple(replace(factor, codes=factor.codes[chosen]) for factor in truth.factors),
        num_left_out=int(np.count_nonzero(~chosen & (lines >= 0))),
    )


def _named(utterances: Sequence[str], wanted: NDArray[np.bool_]) -> str:
    return few([utterances[index] for index in np.flatnonzero(wanted)[:4]])


def _require_the_same_trials(
    scores: ScoreFile, keys: TrialKeys, subset: str, chosen: NDArray[np.bool_], scored: NDArray[np.bool_]
) -> None:
    missing = chosen & ~scored
    num_others = len(scores.utterances) - int(np.count_nonzero(scored))
    faults = []
    if missing.any():
        of_all = "trials" if subset == "all" else f"trials of subset {subset}"
        faults.append(
            f"no score for {np.count_nonzero(missing):,} of {np.count_nonzero(chosen):,} {of_all} "
            f"({_named(keys.utterances, missing)})"
        )
    if num_others:
        known = set(keys.utterances)
        others = [utterance for utterance in scores.utterances if utterance not in known]
        faults.append(f"{num_others:,} of {len(scores.utterances):,} scores for trials not in the keys ({few(others)})")
    if faults:
        raise UserError(
            f"{scores.path} and {keys.path} must name the same trials, found {' and '.join(faults)}: "
            "score all of them, or pass the --keys and the --subset that were scored"
        )


def _require_agreement(path: Path, own: TrialKeys, keys: TrialKeys, lines: NDArray[np.int64]) -> None:
    scored = lines >= 0
    contradicting = scored.copy()
    contradicting[scored] = own.is_bona_fide[lines[scored]] != keys.is_bona_fide[scored]
    if contradicting.any():
        raise UserError(
            f"{path}: its own keys contradict {keys.path} for {np.count_nonzero(contradicting):,} trials "
            f"({_named(keys.utterances, contradicting)}): one of the two files is wrong"
        )
