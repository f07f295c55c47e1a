"""The truth about trials, read from the key files of each corpus as they are published, by columns.

`utils.corpora.protocols` reads what training needs, one trial after the other; here are the labels, subsets, attacks
and codecs of up to 611,829 evaluation trials at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.audio.finding import bare_name
from utils.corpora.trial_columns import (
    ASVSPOOF_5,
    DF_2021,
    HEADER_NAMES,
    KNOWN_WIDTHS,
    SUBSET_NAMES,
    TrialColumns,
    bare_columns,
    headed_columns,
    is_known_row,
)
from utils.errors import UserError
from utils.labels import LABEL_RULE, UNCLEAR, Labels, is_unclear, taken_over
from utils.text_tables import TextTable, few, read_table

_ADVICE = "check --keys"
_NO_DIGITS = Labels()

# The papers' order of the conditions, C1 to C7 in LA and C1 to C9 in DF: config.py of asvspoof-challenge/2021.
_CODEC_ORDER = (
    *("none", "alaw", "pstn", "g722", "ulaw", "gsm", "opus"),
    *("nocodec", "low_mp3", "high_mp3", "low_m4a", "high_m4a", "low_ogg", "high_ogg", "mp3m4a", "oggm4a"),
)
# Like the attack, it describes spoof utterances only; all bona fide ones are compared with each (config.py of 2021).
_OF_SPOOF_ONLY = ("attack", "vocoder")
_ASVSPOOF_5_KEYS = "table with the header `filename cm-label`"
_WITHOUT_ASV = {
    title: f"{measured} is measured without an ASV system (--asv_scores FILE takes the scores of one)"
    for title, measured in (
        (ASVSPOOF_5.title, "track 1 of ASVspoof 5"),
        (_ASVSPOOF_5_KEYS, "track 1 of ASVspoof 5"),
        (DF_2021.title, "ASVspoof 2021 DF"),
    )
}


@dataclass(frozen=True, eq=False)
class Factor:
    """What divides trials into groups: `names` of the groups, and for each trial the index of its own in `codes`.

    With `of_spoof_only`, the group of a bona fide trial means nothing.
    """

    title: str
    names: tuple[str, ...]
    codes: NDArray[np.int32]

    @property
    def of_spoof_only(self) -> bool:
        """Whether a group is made of spoof trials and compared with all bona fide ones: attacks, vocoders."""
        return self.title in _OF_SPOOF_ONLY

    @classmethod
    def of(cls, title: str, values: Sequence[str]) -> Factor:
        """Number the groups: codecs in the papers' order, everything else by name."""
        order = {name: index for index, name in enumerate(_CODEC_ORDER)} if title == "codec" else {}
        names = sorted(set(values), key=lambda name: (order.get(name, len(order)), name))
        index = {name: number for number, name in enumerate(names)}
        return cls(title, tuple(names), np.fromiter((index[value] for value in values), np.int32, len(values)))


@dataclass(frozen=True, eq=False)
class TrialKeys:
    """A key file: `utterances` without audio suffixes, each once, and for each whether it is bona fide.

    `subsets` is None where the file has no such column; `format_title` says what the file was found to be. `why_no_asv`
    says why no speaker verification (ASV) stands behind these trials, and so no t-DCF; "" where one may. `note` tells
    how labels were read that are not written as in the challenges.
    """

    path: Path
    format_title: str
    utterances: tuple[str, ...]
    is_bona_fide: NDArray[np.bool_]
    subsets: tuple[str, ...] | None
    factors: tuple[Factor, ...]
    why_no_asv: str = ""
    note: str = ""

    def chosen(self, subset: str | None) -> tuple[str, NDArray[np.bool_]]:
        """Return the name and the trials `(utterances,)` of a subset; None means `eval` where there are subsets.

        Official figures of ASVspoof 2021 are those of `eval`. Raises UserError where the keys do not have the subset.
        """
        name = subset or ("eval" if self.subsets else "all")
        if name == "all":
            return name, np.ones(len(self.utterances), dtype=np.bool_)
        if self.subsets is None:
            raise UserError(
                f"--subset {name}: {self.path} ({self.format_title}) has no subset column: leave --subset out"
            )
        chosen = np.fromiter((found == name for found in self.subsets), np.bool_, len(self.subsets))
        if not chosen.any():
            counts = ", ".join(f"{found} ({count:,})" for found, count in sorted(Counter(self.subsets).items()))
            raise UserError(f"--subset {name}: {self.path} has no such trials, found {counts}: pass one of these")
        return name, chosen


def read_keys(path: Path, labels: Labels = _NO_DIGITS) -> TrialKeys:
    """Read a key file; its format is found by its content, and `labels` reads its labels.

    * ASVspoof 2019 LA protocols, 5 columns, and copies without the third; score files that hold the key (`utterance
      attack key score`);
    * ASVspoof 2021 LA (8 columns) and DF (13) trial_metadata.txt: key in column 6, subset in column 8;
    * ASVspoof 5 `.tsv` of track 1: 10 columns divided by spaces, no header; and its key file with the header
      `filename cm-label`;
    * In-the-Wild meta.csv, and any CSV with a column `file` or `path` and one `label` (and perhaps `attack`, `codec`).

    Raises UserError, naming file and line, for what cannot be understood and for utterances that come twice.
    """
    return keys_of(read_table(path, "key", _ADVICE, HEADER_NAMES, is_known_row), labels)


def keys_of(table: TextTable, labels: Labels) -> TrialKeys:
    """Return the keys in a table that was read already; raises UserError as `read_keys` does."""
    columns = _columns_of(table)
    assert columns.key is not None
    words = set(table.columns[columns.key])
    rule = UNCLEAR if any(map(is_unclear, words)) and labels.label_1 is None else LABEL_RULE
    is_bona_fide = np.array(table.parsed(columns.key, labels.parsed, rule), dtype=np.bool_)
    factors = {} if columns.attack is None else {"attack": columns.attack}
    subsets = [] if columns.subset is None else table.columns[columns.subset]
    return TrialKeys(
        path=table.path,
        format_title=columns.title,
        utterances=unique_names(table, columns.utterance),
        is_bona_fide=is_bona_fide,
        subsets=tuple(SUBSET_NAMES.get(name, name) for name in subsets) or None,
        factors=tuple(
            Factor.of(title, table.columns[column]) for title, column in {**factors, **columns.factors}.items()
        ),
        why_no_asv=_WITHOUT_ASV.get(columns.title, ""),
        note=taken_over(f"label column `{table.titles[columns.key]}`" if table.titles else "labels", words, labels),
    )


def unique_names(table: TextTable, column: int) -> tuple[str, ...]:
    """Return the utterances in a column, without audio suffixes; raises UserError where one comes twice."""
    names = tuple(bare_name(name.strip()) for name in table.columns[column])
    if len(set(names)) != len(names):
        doubled = [name for name, count in Counter(names).items() if count > 1]
        lines = [line for line, name in zip(table.line_numbers, names, strict=True) if name == doubled[0]]
        raise UserError(
            f"{table.path}: an utterance may come only once in a {table.noun} file, found {len(doubled):,} that come "
            f"again ({few(doubled)}), the first in lines {lines[0]} and {lines[1]}: remove the lines that are too many"
        )
    return names


def _columns_of(table: TextTable) -> TrialColumns:
    found = headed_columns(table.header) if table.header else bare_columns([column[0] for column in table.columns])
    if found is not None:
        return found
    if table.header:
        raise UserError(
            f"{table.path}: a key file with a header has a column for files and one for labels, found "
            f"{', '.join(table.header)}: name them `path` and `label`"
        )
    counts = ", ".join(map(str, KNOWN_WIDTHS))
    raise UserError(
        f"{table.path}, line {table.line_numbers[0]}: this is no key file that is known, found {len(table.columns)} "
        f"columns (`{table.first_line()}`): pass a protocol or key file of ASVspoof 2019, 2021 or 5 ({counts} "
        "columns), the meta.csv of In-the-Wild, or a CSV with the header `path,label`"
    )
