"""The truth about trials, read from the key files of each corpus as they are published, by columns.

`utils.protocols` reads what training needs, one trial after the other; here are the labels, subsets, attacks and codecs
of up to 611,829 evaluation trials at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError
from utils.text_tables import TextTable, bare_name, few, read_table

SUBSETS = ("eval", "progress", "hidden", "all")
LABELS: Mapping[str, bool] = {"bonafide": True, "bona-fide": True, "spoof": False}
_LABEL_RULE = "the key is `bonafide`, `bona-fide` or `spoof`"
_SUBSET_NAMES = {"hidden_track": "hidden"}  # what the first 2021 package called it
_ID_NAMES = ("filename", "file_name", "file", "path", "utterance", "trial_anon")
_LABEL_NAMES = ("cm-label", "cm_label", "label", "key")
_ATTACK_NAMES = ("attack", "attack_anon", "attack_label")
HEADER_NAMES = (*_ID_NAMES, *_LABEL_NAMES)
_ADVICE = "check --keys"

# The papers' order of the conditions, C1 to C7 in LA and C1 to C9 in DF: config.py of asvspoof-challenge/2021.
_CODEC_ORDER = (
    *("none", "alaw", "pstn", "g722", "ulaw", "gsm", "opus"),
    *("nocodec", "low_mp3", "high_mp3", "low_m4a", "high_m4a", "low_ogg", "high_ogg", "mp3m4a", "oggm4a"),
)


@dataclass(frozen=True)
class _Layout:
    """Which column, from 0, of a file without header holds what; `factors` beside the attack, by title."""

    title: str
    utterance: int
    key: int
    attack: int | None = None
    subset: int | None = None
    factors: Mapping[str, int] = field(default_factory=dict)


_LA_2019, _SCORES_2019 = "ASVspoof 2019 LA protocol", "`utterance attack key score` (ASVspoof 2019)"
_LAYOUTS: Mapping[int, tuple[_Layout, ...]] = {
    4: (_Layout(f"{_LA_2019} without its third column", 1, 3, 2), _Layout(_SCORES_2019, 0, 2, 1)),
    5: (_Layout(_LA_2019, 1, 4, 3),),
    8: (_Layout("ASVspoof 2021 LA trial_metadata.txt", 1, 5, 4, 7, {"codec": 2}),),
    10: (_Layout("ASVspoof 5 track 1 .tsv", 1, 8, 7, factors={"codec": 3}),),
    13: (_Layout("ASVspoof 2021 DF trial_metadata.txt", 1, 5, 4, 7, {"codec": 2, "vocoder": 8}),),
}
# Like the attack, it describes spoof utterances only; all bona fide ones are compared with each (config.py of 2021).
_OF_SPOOF_ONLY = ("attack", "vocoder")


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

    `subsets` is None where the file has no such column; `format_title` says what the file was found to be.
    """

    path: Path
    format_title: str
    utterances: tuple[str, ...]
    is_bona_fide: NDArray[np.bool_]
    subsets: tuple[str, ...] | None
    factors: tuple[Factor, ...]

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


def read_keys(path: Path) -> TrialKeys:
    """Read a key file; its format is found by its content.

    * ASVspoof 2019 LA protocols, 5 columns, and copies without the third; score files that hold the key (`utterance
      attack key score`);
    * ASVspoof 2021 LA (8 columns) and DF (13) trial_metadata.txt: key in column 6, subset in column 8;
    * ASVspoof 5 `.tsv` of track 1: 10 columns divided by spaces, no header; and its key file with the header
      `filename cm-label`;
    * In-the-Wild meta.csv, and any CSV with a column `file` or `path` and one `label` (and perhaps `attack`, `codec`).

    Raises UserError, naming file and line, for what cannot be understood and for utterances that come twice.
    """
    return keys_of(read_table(path, "key", _ADVICE, HEADER_NAMES))


def keys_of(table: TextTable) -> TrialKeys:
    """Return the keys in a table that was read already; raises UserError as `read_keys` does."""
    layout = _headed_layout(table) if table.header else _bare_layout(table)
    is_bona_fide = np.array(table.parsed(layout.key, lambda cell: LABELS[cell.strip()], _LABEL_RULE), dtype=np.bool_)
    factors = {} if layout.attack is None else {"attack": layout.attack}
    subsets = [] if layout.subset is None else table.columns[layout.subset]
    return TrialKeys(
        path=table.path,
        format_title=layout.title,
        utterances=unique_names(table, layout.utterance),
        is_bona_fide=is_bona_fide,
        subsets=tuple(_SUBSET_NAMES.get(name, name) for name in subsets) or None,
        factors=tuple(
            Factor.of(title, table.columns[column]) for title, column in {**factors, **layout.factors}.items()
        ),
    )


def unique_names(table: TextTable, column: int) -> tuple[str, ...]:
    """Return the utterances in a column, without audio suffixes; raises UserError where one comes twice."""
    names = tuple(map(bare_name, table.columns[column]))
    if len(set(names)) != len(names):
        doubled = [name for name, count in Counter(names).items() if count > 1]
        lines = [line for line, name in zip(table.line_numbers, names, strict=True) if name == doubled[0]]
        raise UserError(
            f"{table.path}: an utterance may come only once in a {table.noun} file, found {len(doubled):,} that come "
            f"again ({few(doubled)}), the first in lines {lines[0]} and {lines[1]}: remove the lines that are too many"
        )
    return names


def _bare_layout(table: TextTable) -> _Layout:
    for layout in _LAYOUTS.get(len(table.columns), ()):
        if table.columns[layout.key][0] in LABELS:
            return layout
    counts = ", ".join(map(str, sorted(_LAYOUTS)))
    raise UserError(
        f"{table.path}, line {table.line_numbers[0]}: this is no key file that is known, found {len(table.columns)} "
        f"columns (`{table.first_line()}`): pass a protocol or key file of ASVspoof 2019, 2021 or 5 ({counts} "
        "columns), the meta.csv of In-the-Wild, or a CSV with the header `path,label`"
    )


def _headed_layout(table: TextTable) -> _Layout:
    utterance, key = table.named(_ID_NAMES), table.named(_LABEL_NAMES)
    if utterance is None or key is None:
        raise UserError(
            f"{table.path}: a key file with a header has a column for files and one for labels, found "
            f"{', '.join(table.header)}: name them `path` and `label`"
        )
    codec = table.named(("codec",))
    return _Layout(
        title=f"table with the header `{' '.join(table.header)}`",
        utterance=utterance,
        key=key,
        attack=table.named(_ATTACK_NAMES),
        subset=table.named(("subset",)),
        factors={} if codec is None else {"codec": codec},
    )
