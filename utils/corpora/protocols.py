"""Protocol files of every known format, read as published; all that is wrong with one is collected."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.audio.finding import bare_name
from utils.corpora.trial_columns import (
    ASVSPOOF_2019,
    HEADER_NAMES,
    KNOWN_WIDTHS,
    SUBSET_NAMES,
    TrialColumns,
    bare_columns,
    columns_of_width,
    headed_columns,
    is_known_row,
)
from utils.corpora.trials import NO_ATTACK, UNKNOWN, Fault, FaultKind, Protocol, ScannedProtocol, Trial
from utils.errors import UserError
from utils.labels import LABEL_RULE, UNCLEAR, ZEROS, Labels, is_unclear, taken_over
from utils.text_tables import Lines, any_header_of, open_lines, shortened

__all__ = ["NO_ATTACK", "Protocol", "Trial", "read_protocol", "scan_protocol"]

_ADVICE = "check --protocols_path and --database_path"
_NAMES_OF_NO_ATTACK = ("", "-", "bonafide", "bona-fide")
_NO_DIGITS = Labels()
_BOTH_ZEROS = "0 and -1 are both labels here, and only one of them can be the other class of 1: name the labels"
_REMOVE = "remove one of the two lines"
_LAYOUT_2019 = "a line reads `speaker utterance - attack key`"


def read_protocol(path: Path, columns: TrialColumns | None = ASVSPOOF_2019) -> Protocol:
    """Read a protocol file with both classes; `columns` None finds the format by its content.

    In ASVspoof 2019 LA a line is `speaker utterance env attack key` (evaluation plan; env is "-"). Some redistributed
    copies drop the third column, so utterance is the second, attack the second last and key the last one. Blank lines,
    CRLF and a byte-order mark are fine.

    Raises UserError, naming the file and the line, for a file that cannot be read, is not text or is empty, for a line
    that cannot be understood, an utterance that comes twice, and a protocol that has only one of the two classes.
    """
    scanned = scan_protocol(path, columns)
    protocol = scanned.protocol()
    for fault in scanned.class_faults():
        raise UserError(fault.message)
    return protocol


def scan_protocol(path: Path, columns: TrialColumns | None = None, labels: Labels = _NO_DIGITS) -> ScannedProtocol:
    """Read a protocol file of any known format and collect what is wrong with it; raises nothing for its content."""
    try:
        opened = open_lines(path, "protocol", _ADVICE, HEADER_NAMES, is_known_row)
        columns = _columns_of(opened, columns)
    except UserError as error:
        return ScannedProtocol(path, faults=(Fault(FaultKind.FILE, str(error), str(error)),))
    reader = _Reader(path, columns, len(opened.header.titles) or len(opened.first_row()[1]), labels)
    try:
        for line_number, row in opened.rows(reader.is_row):
            reader.read(line_number, row)
    except UserError as error:
        reader.faults.append(Fault(FaultKind.LINE, str(error), str(error).removeprefix(f"{path}, ")))
    return ScannedProtocol(
        path,
        tuple(reader.trials),
        tuple(reader.names),
        tuple(reader.faults),
        _content_hash(opened.content, reader),
        has_keys=columns.key is not None,
        notes=reader.notes(opened.header.titles),
    )


def _columns_of(opened: Lines, columns: TrialColumns | None) -> TrialColumns:
    """Return the columns, those given where the file has no header; raises UserError where they are not known."""
    path, titles = opened.path, opened.header.titles
    line_number, first = opened.first_row()
    if not first:
        raise UserError(f"{path}: the protocol is empty: copy it again, or pass another --protocols_path")
    is_cut_up = columns is None and len(first) == 1 and path.suffix.lower() in (".csv", ".tsv")
    unknown = any_header_of(path) if is_cut_up else ()  # which is no list of names
    if titles or unknown:
        columns = headed_columns(opened.header.names)
        if columns is None:
            raise UserError(
                f"{path}: a protocol with a header has a column for files and one for labels, found "
                f"{', '.join(titles or unknown)}: name them `path` and `label`"
            )
    columns = columns or bare_columns(first) or columns_of_width(len(first))
    if columns is None:
        raise UserError(
            f"{path}, line {line_number}: this is no protocol that is known, found {len(first)} columns "
            f"(`{shortened(first)}`): pass one of ASVspoof 2019, 2021 or 5 ({', '.join(map(str, KNOWN_WIDTHS))} "
            "columns), a list of names, or a table with the header `path,label`"
        )
    return columns


def _content_hash(content: bytes, reader: _Reader) -> str:
    """Return the SHA-256 (hex) of what decides on the trials: of the file, and of what numbers as labels mean in it."""
    digest = hashlib.sha256(content)
    if reader.has_digits:
        digest.update(f"\nlabel_1={reader.labels.label_1}".encode())
    return digest.hexdigest()


_Refuse = Callable[[FaultKind, str, str], None]


class _Reader:
    """Turns rows into trials, one after the other, and keeps what is wrong with them."""

    def __init__(self, path: Path, columns: TrialColumns, width: int, labels: Labels) -> None:
        self.trials: list[Trial] = []
        self.names: list[str] = []
        self.faults: list[Fault] = []
        self._path = path
        self._columns = columns
        self._is_2019 = columns is ASVSPOOF_2019
        self._width = 4 if self._is_2019 else width
        self._firsts: dict[str, int] = {}
        self._lines = array("Q")
        self._codec = columns.factors.get("codec")
        self._keys: set[str] = set()
        self.labels = labels

    @property
    def has_digits(self) -> bool:
        """Whether the trials have labels that are numbers."""
        return any(map(is_unclear, self._keys))

    def is_row(self, cells: Sequence[str]) -> bool:
        """Whether the cells of a line, as many as there are columns, are those of a trial."""
        return self._columns.key is None or self.labels.is_bona_fide(cells[self._columns.key]) is not None

    def notes(self, titles: Sequence[str]) -> tuple[str, ...]:
        """Return how labels were read that are not written as in the challenges."""
        key = self._columns.key
        column = f"label column `{titles[key]}`" if titles and key is not None else "labels"
        told = taken_over(column, self._keys, self.labels)
        return (told,) if told else ()

    def read(self, line_number: int, row: list[str]) -> None:
        def refuse(kind: FaultKind, message: str, found: str) -> None:
            place = f"{self._path}, line {line_number}"
            self.faults.append(Fault(kind, f"{place}: {message}", f"line {line_number}: {found}"))

        if len(row) < self._width or (len(row) > self._width and not self._is_2019):
            rule = f"has at least {self._width} columns" if self._is_2019 else f"has {self._width} columns"
            layout = _LAYOUT_2019 if self._is_2019 else "correct the line"
            line = shortened(row)
            found = f"`{line}`: {len(row)} instead of {self._width} columns"
            refuse(FaultKind.LINE, f"a protocol line {rule}, found {len(row)} (`{line}`): {layout}", found)
            return
        name = row[self._columns.utterance].strip()
        utterance = bare_name(name)
        if not name:
            line = shortened(row)
            message = f"a line names an utterance, and `{line}` does not: write its name, or remove the line"
            refuse(FaultKind.LINE, message, f"`{line}`: no utterance")
            return
        if utterance in self._firsts:
            first = self._firsts[utterance]
            earlier, is_other = (
                self._lines[first],
                utterance not in (name, self.names[first]) and name != self.names[first],
            )
            refuse(
                FaultKind.DOUBLED,
                f"an utterance may come only once, found {utterance} again after line {earlier}: "
                + (f"{name} is another file, but scores name both alike: rename it" if is_other else _REMOVE),
                f"{utterance}, first in line {earlier}{', with another suffix' if is_other else ''}",
            )
            return
        self._firsts[utterance] = len(self.names)
        self.names.append(name)
        self._lines.append(line_number)
        self.trials.append(self._trial(utterance, row, refuse))

    def _trial(self, utterance: str, row: list[str], refuse: _Refuse) -> Trial:
        columns = self._columns
        is_bona_fide, attack = None, _cell(row, columns.attack, UNKNOWN)
        if columns.key is not None:
            key = row[columns.key].strip()
            is_bona_fide = self.labels.is_bona_fide(key)
            if is_bona_fide is None:
                self._refuse_label(key, utterance, row, refuse)
            elif key in ZEROS and self._keys.issuperset({*ZEROS} - {key}):
                refuse(FaultKind.LABEL, f"{_BOTH_ZEROS} (`{shortened(row)}`)", f"`{key}` ({utterance}): {_BOTH_ZEROS}")
            self._keys.add(key)
        if is_bona_fide:
            if self._is_2019 and attack != NO_ATTACK:
                refuse(
                    FaultKind.ATTACK,
                    f"a bonafide line has `-` before its key, found the attack `{attack}` "
                    f"(`{shortened(row)}`): correct the attack or the key",
                    f"`{attack}` ({utterance})",
                )
            attack = NO_ATTACK
        elif attack in _NAMES_OF_NO_ATTACK:
            attack = UNKNOWN
        subset = _cell(row, columns.subset, "")
        return Trial(
            speaker=_cell(row, columns.speaker, UNKNOWN),
            utterance=utterance,
            attack=attack,
            is_bona_fide=is_bona_fide,
            codec=_cell(row, self._codec, UNKNOWN),
            subset=SUBSET_NAMES.get(subset, subset),
            part=_cell(row, columns.part, "").lower(),
            source=bare_name(_cell(row, columns.source, UNKNOWN)),
        )

    def _refuse_label(self, key: str, utterance: str, row: list[str], refuse: _Refuse) -> None:
        if not is_unclear(key):
            refuse(
                FaultKind.LABEL,
                f"{LABEL_RULE if not self._is_2019 else LABEL_RULE.replace('key', 'last column')}, found `{key}` "
                f"(`{shortened(row)}`): {_LAYOUT_2019 if self._is_2019 else 'correct the line'}",
                f"`{key}` ({utterance})",
            )
        elif not self.has_digits:  # once, and not for each of 600,000 lines
            refuse(FaultKind.LABEL, f"the key is `{key}`; {UNCLEAR}", f"`{key}` ({utterance}); {UNCLEAR}")


def _cell(row: list[str], column: int | None, otherwise: str) -> str:
    return otherwise if column is None else row[column].strip() or otherwise
