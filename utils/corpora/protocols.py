"""Protocol files of every known format, read as published; all that is wrong with one is collected."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

from utils.audio.finding import bare_name
from utils.corpora.trial_columns import (
    ASVSPOOF_2019,
    HEADER_NAMES,
    KNOWN_WIDTHS,
    LABELS,
    SUBSET_NAMES,
    TrialColumns,
    columns_of_width,
    headed_columns,
)
from utils.corpora.trials import NO_ATTACK, UNKNOWN, Fault, FaultKind, Protocol, ScannedProtocol, Trial
from utils.errors import UserError
from utils.text_tables import decoded, numbered_rows, read_bytes, shortened

__all__ = ["NO_ATTACK", "Protocol", "Trial", "read_protocol", "scan_protocol"]

_ADVICE = "check --protocols_path and --database_path"
_NAMES_OF_NO_ATTACK = ("", "-", "bonafide", "bona-fide")
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


def scan_protocol(path: Path, columns: TrialColumns | None = None) -> ScannedProtocol:
    """Read a protocol file of any known format and collect what is wrong with it; raises nothing for its content."""
    try:
        content = read_bytes(path, "protocol", _ADVICE)
        text = decoded(content, path, "protocol")
    except UserError as error:
        return ScannedProtocol(path, faults=(Fault(FaultKind.FILE, str(error), str(error)),))
    header, numbered = numbered_rows(text, HEADER_NAMES)
    # Not a list of all rows: 600,000 of them would keep the garbage collector busy for seconds.
    first = next(numbered, None)
    if first is None:
        message = f"{path}: the protocol is empty: copy it again, or pass another --protocols_path"
        return ScannedProtocol(path, faults=(Fault(FaultKind.FILE, message, message),))
    if header:
        columns = headed_columns(header)
        if columns is None:
            message = (
                f"{path}: a protocol with a header has a column for files and one for labels, found "
                f"{', '.join(header)}: name them `path` and `label`"
            )
            return ScannedProtocol(path, faults=(Fault(FaultKind.FILE, message, message),))
    if columns is None:
        columns = columns_of_width(len(first[1]))
    if columns is None:
        message = (
            f"{path}, line {first[0]}: this is no protocol that is known, found {len(first[1])} columns "
            f"(`{shortened(first[1])}`): pass one of ASVspoof 2019, 2021 or 5 ({', '.join(map(str, KNOWN_WIDTHS))} "
            "columns), a list of names, or a table with the header `path,label`"
        )
        return ScannedProtocol(path, faults=(Fault(FaultKind.FILE, message, message),))
    reader = _Reader(path, columns, len(header) or len(first[1]))
    for line_number, row in itertools.chain([first], numbered):
        reader.read(line_number, row)
    return ScannedProtocol(
        path,
        tuple(reader.trials),
        tuple(reader.names),
        tuple(reader.faults),
        hashlib.sha256(content).hexdigest(),
        has_keys=columns.key is not None,
    )


_Refuse = Callable[[FaultKind, str, str], None]


class _Reader:
    """Turns rows into trials, one after the other, and keeps what is wrong with them."""

    def __init__(self, path: Path, columns: TrialColumns, width: int) -> None:
        self.trials: list[Trial] = []
        self.names: list[str] = []
        self.faults: list[Fault] = []
        self._path = path
        self._columns = columns
        self._is_2019 = columns is ASVSPOOF_2019
        self._width = 4 if self._is_2019 else width
        self._first_lines: dict[str, int] = {}
        self._codec = columns.factors.get("codec")

    def read(self, line_number: int, row: list[str]) -> None:
        def refuse(kind: FaultKind, message: str, found: str) -> None:
            place = f"{self._path}, line {line_number}"
            self.faults.append(Fault(kind, f"{place}: {message}", f"line {line_number}: {found}"))

        if len(row) < self._width or (len(row) > self._width and not self._is_2019):
            rule = f"has at least {self._width} columns" if self._is_2019 else f"has {self._width} columns"
            layout = _LAYOUT_2019 if self._is_2019 else "correct the line"
            line = shortened(row)
            refuse(FaultKind.LINE, f"a protocol line {rule}, found {len(row)} (`{line}`): {layout}", f"`{line}`")
            return
        name = row[self._columns.utterance].strip()
        utterance = bare_name(name)
        if utterance in self._first_lines:
            first = self._first_lines[utterance]
            refuse(
                FaultKind.DOUBLED,
                f"an utterance may come only once, found {utterance} again after line {first}: "
                "remove one of the two lines",
                f"{utterance}, first in line {first}",
            )
            return
        self._first_lines[utterance] = line_number
        self.names.append(name)
        self.trials.append(self._trial(utterance, row, refuse))

    def _trial(self, utterance: str, row: list[str], refuse: _Refuse) -> Trial:
        columns = self._columns
        is_bona_fide, attack = None, _cell(row, columns.attack, UNKNOWN)
        if columns.key is not None:
            key = row[columns.key].strip()
            is_bona_fide = LABELS.get(key)
            if is_bona_fide is None:
                refuse(
                    FaultKind.LABEL,
                    f"the {'last column' if self._is_2019 else 'key'} is `bonafide` or `spoof`, found `{key}` "
                    f"(`{shortened(row)}`): {_LAYOUT_2019 if self._is_2019 else 'correct the line'}",
                    f"`{key}` ({utterance})",
                )
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
        )


def _cell(row: list[str], column: int | None, otherwise: str) -> str:
    return otherwise if column is None else row[column].strip() or otherwise
