"""What the labels of the field mean, in any case; 1 and 0 (or -1), which mean either, mean what somebody says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

LABELS: Mapping[str, bool] = {"bonafide": True, "bona-fide": True, "spoof": False}
"""As the challenges and this program write them."""
_OTHERS: Mapping[str, bool] = {
    "bona fide": True,
    "genuine": True,
    "real": True,
    "human": True,
    "fake": False,
    "deepfake": False,
}
LABEL_WORDS: Mapping[str, bool] = {**LABELS, **_OTHERS}
"""As the field writes them, in lower case; True is bona fide."""
CLASSES = ("spoof", "bonafide")
ZEROS = ("0", "-1")
"""What is written for the class that is not 1. A table that has both may mean a third thing by one of them."""
_CLASS_TEXT = {True: "bona fide", False: "spoof"}
LABEL_RULE = "the key is `bonafide` or `spoof`"
UNCLEAR = "numbers as labels mean one thing here and another there: pass --label_1 spoof or --label_1 bonafide"


class Labels:
    """Reads labels; `label_1` is the class that is written as 1, of CLASSES, None where that is not known.

    >>> labels = Labels("spoof")
    >>> labels.is_bona_fide("Fake"), labels.is_bona_fide("0"), labels.is_bona_fide("?")
    (False, True, None)
    >>> Labels(None).is_bona_fide("0") is None
    True
    """

    def __init__(self, label_1: str | None = None) -> None:
        is_1 = label_1 == "bonafide"
        self._words = {**LABEL_WORDS, **({"1": is_1, **dict.fromkeys(ZEROS, not is_1)} if label_1 else {})}
        self._read: dict[str, bool | None] = {}
        self.label_1 = label_1

    def is_bona_fide(self, cell: str) -> bool | None:
        """Return whether a label says bona fide; None for what is no label."""
        try:
            return self._read[cell]
        except KeyError:
            found = self._words.get(cell.strip().lower())
            self._read[cell] = found
            return found

    def parsed(self, cell: str) -> bool:
        """Return whether a label says bona fide; raises KeyError for what is no label."""
        found = self.is_bona_fide(cell)
        if found is None:
            raise KeyError(cell)
        return found


def is_unclear(cell: str) -> bool:
    """Return whether a label is a number, which does not say what it means."""
    return cell.strip() in ("1", *ZEROS)


def looks_like_label(cell: str) -> bool:
    """Return whether a cell is a label of the field, one that is unclear too."""
    return cell.strip().lower() in LABEL_WORDS or is_unclear(cell)


def taken_over(column: str, cells: Collection[str], labels: Labels) -> str:
    """Return how the labels in a column were read, "" where all are written as in the challenges.

    >>> taken_over("label column `Label`", {"FAKE", "REAL"}, Labels())
    "label column `Label`: 'FAKE' read as spoof, 'REAL' as bona fide"
    """
    return told_words(column, {cell.strip(): labels.is_bona_fide(cell) for cell in cells})


def told_words(place: str, words: Mapping[str, bool | None]) -> str:
    """Return which words were read as which class, "" where all are those of LABELS."""
    others = [(word, found) for word, found in sorted(words.items()) if found is not None and word not in LABELS]
    said = [f"'{word}' {'' if at else 'read '}as {_CLASS_TEXT[found]}" for at, (word, found) in enumerate(others)]
    return f"{place}: {', '.join(said)}" if said else ""
