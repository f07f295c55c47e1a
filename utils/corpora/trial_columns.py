"""Which column holds what in the protocols and key files of this field, found by a file's header or by its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from utils.labels import is_unclear, looks_like_label

SUBSET_NAMES = {"hidden_track": "hidden"}  # what the first 2021 package called it
PART_NAMES = ("part", "split")

ID_NAMES = ("filename", "file_name", "file", "path", "utterance", "utt", "trial_anon")
_FIRST_LABEL_NAMES = ("cm-label", "cm_label", "label", "key")
LABEL_NAMES = (*_FIRST_LABEL_NAMES, "ground truth", "ground_truth")
_ATTACK_NAMES = ("attack", "attack_anon", "attack_label")
_SPEAKER_NAMES = ("speaker", "speaker_id")
HEADER_NAMES = (*ID_NAMES, *LABEL_NAMES)


@dataclass(frozen=True)
class TrialColumns:
    """Which column, from 0, holds what; None for what is not there; `factors` beside the attack, by title.

    `key` may be None in a bare list of trials only. `part` says which part of a corpus a trial belongs to, `source`
    which utterance a spoof was made of.
    """

    title: str
    utterance: int
    key: int | None
    attack: int | None = None
    subset: int | None = None
    speaker: int | None = None
    part: int | None = None
    source: int | None = None
    factors: Mapping[str, int] = field(default_factory=dict)


_LA_2019, _SCORES_2019 = "ASVspoof 2019 LA protocol", "`utterance attack key score` (ASVspoof 2019)"
ASVSPOOF_2019 = TrialColumns(_LA_2019, 1, -1, -2, speaker=0)
"""Counted from the end, since some redistributed copies drop the third column."""

TRIAL_LIST = TrialColumns("list of trials without keys", 0, None)

ASVSPOOF_5 = TrialColumns("ASVspoof 5 track 1 .tsv", 1, 8, 7, speaker=0, factors={"codec": 3})
_LA_2021 = TrialColumns("ASVspoof 2021 LA trial_metadata.txt", 1, 5, 4, 7, speaker=0, factors={"codec": 2})
DF_2021 = TrialColumns("ASVspoof 2021 DF trial_metadata.txt", 1, 5, 4, 7, speaker=0, factors={"codec": 2, "vocoder": 8})
_BY_WIDTH: Mapping[int, tuple[TrialColumns, ...]] = {
    4: (TrialColumns(f"{_LA_2019} without its third column", 1, 3, 2, speaker=0), TrialColumns(_SCORES_2019, 0, 2, 1)),
    5: (TrialColumns(_LA_2019, 1, 4, 3, speaker=0),),
    8: (_LA_2021,),
    10: (ASVSPOOF_5,),
    13: (DF_2021,),
}
KNOWN_WIDTHS = tuple(sorted(_BY_WIDTH))


def bare_columns(first_row: Sequence[str]) -> TrialColumns | None:
    """Return the columns of a file with keys and without a header, None where it is none that is known.

    >>> bare_columns("LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval".split()).title
    'ASVspoof 2021 LA trial_metadata.txt'
    """
    found = [
        columns
        for columns in _BY_WIDTH.get(len(first_row), ())
        if columns.key is not None and looks_like_label(first_row[columns.key])
    ]
    # A score may be 0 or 1, too.
    clear = [columns for columns in found if columns.key is not None and not is_unclear(first_row[columns.key])]
    return next(iter(clear or found), None)


def is_known_row(first_row: Sequence[str]) -> bool:
    """Return whether a line without a header is one of a key file that is known."""
    return bare_columns(first_row) is not None


def columns_of_width(width: int) -> TrialColumns | None:
    """Return the columns of a protocol by the number of them alone, None where that is not known."""
    return TRIAL_LIST if width == 1 else next(iter(_BY_WIDTH.get(width, ())), None)


def headed_columns(header: Sequence[str]) -> TrialColumns | None:
    """Return the columns of a file with a header, None where it has no column for files or none for labels.

    >>> headed_columns(["file", "speaker", "label"]).key
    2
    """
    utterance, key = _named(header, ID_NAMES), _named(header, LABEL_NAMES)
    if utterance is None or key is None:
        return None
    codec = _named(header, ("codec",))
    return TrialColumns(
        title=f"table with the header `{' '.join(header)}`",
        utterance=utterance,
        key=key,
        attack=_named(header, _ATTACK_NAMES),
        subset=_named(header, ("subset",)),
        speaker=_named(header, _SPEAKER_NAMES),
        part=_named(header, PART_NAMES),
        source=_named(header, ("source",)),
        factors={} if codec is None else {"codec": codec},
    )


def _named(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def is_first_header(header: Sequence[str]) -> bool:
    """Return whether the first versions of this program knew a header's columns, too."""
    return _named(header, ID_NAMES) is not None and _named(header, _FIRST_LABEL_NAMES) is not None
