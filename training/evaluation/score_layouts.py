"""How a finished score file is laid out: as the official tools of the corpus read it."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from utils.corpora.trial_columns import ASVSPOOF_5, ASVSPOOF_2019
from utils.corpora.trials import Trial
from utils.scores.trial_keys import TrialKeys


class ScoreLayout(enum.Enum):
    """The columns of a score file."""

    PLAIN = enum.auto()
    """`utterance score`, divided by a space: ASVspoof 2021."""
    WITH_KEYS = enum.auto()
    """`utterance attack key score`, divided by spaces: ASVspoof 2019."""
    WITH_HEADER = enum.auto()
    """`filename` and `cm-score` with that header, divided by tabs: ASVspoof 5, and names with spaces."""


def layout_for(corpus: str, trials: Sequence[Trial], keys: TrialKeys | None) -> ScoreLayout:
    """Return the layout for trials of a corpus, by its name or by the format of its keys; None for no keys."""
    if "ASVspoof 5" in corpus or any(len(trial.utterance.split()) != 1 for trial in trials):
        return ScoreLayout.WITH_HEADER
    if keys and keys.format_title == ASVSPOOF_5.title:
        return ScoreLayout.WITH_HEADER
    is_2019 = keys is not None and keys.format_title.startswith(ASVSPOOF_2019.title)
    if is_2019 and all(trial.is_bona_fide is not None for trial in trials):
        return ScoreLayout.WITH_KEYS
    return ScoreLayout.PLAIN


def score_text(layout: ScoreLayout, trials: Sequence[Trial], scores: Sequence[str]) -> str:
    """Return the whole file.

    >>> trial = Trial("LA_0039", "LA_E_2834763", "A11", is_bona_fide=False)
    >>> score_text(ScoreLayout.WITH_KEYS, [trial], ["-5.25"])
    'LA_E_2834763 A11 spoof -5.25\\n'
    """
    pairs = zip(trials, scores, strict=True)
    if layout is ScoreLayout.WITH_KEYS:
        return "".join(f"{trial.utterance} {trial.attack} {_key(trial)} {score}\n" for trial, score in pairs)
    gap, head = ("\t", "filename\tcm-score\n") if layout is ScoreLayout.WITH_HEADER else (" ", "")
    return head + "".join(f"{trial.utterance}{gap}{score}\n" for trial, score in pairs)


def _key(trial: Trial) -> str:
    return "bonafide" if trial.is_bona_fide else "spoof"
