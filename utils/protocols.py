"""Protocol files of ASVspoof 2019 LA: which utterances a part of a corpus has, and which of them are bona fide."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.text_tables import decoded, read_bytes, shortened

NO_ATTACK = "-"
_KEYS = {"bonafide": True, "spoof": False}
_LAYOUT = "a line reads `speaker utterance - attack key`"


@dataclass(frozen=True)
class Trial:
    """One line of a protocol file; `attack` is "-" for bona fide.

    >>> Trial(speaker="LA_0079", utterance="LA_T_1138215", attack="-", is_bona_fide=True).label
    1
    """

    speaker: str
    utterance: str
    attack: str
    is_bona_fide: bool

    def __post_init__(self) -> None:
        if self.is_bona_fide and self.attack != NO_ATTACK:
            raise ValueError(f'the attack of a bona fide trial must be "-", found {self.attack!r}')

    @property
    def label(self) -> int:
        """1 for bona fide, 0 for spoof."""
        return int(self.is_bona_fide)


@dataclass(frozen=True)
class Protocol:
    """A parsed protocol file: its trials in the file's order, and the SHA-256 (hex) of the file's bytes."""

    path: Path
    trials: tuple[Trial, ...]
    content_sha256: str

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def labels(self) -> tuple[int, ...]:
        """1 for bona fide and 0 for spoof, in the order of `trials`."""
        return tuple(trial.label for trial in self.trials)

    @property
    def num_bona_fide(self) -> int:
        """How many trials are bona fide."""
        return sum(self.labels)

    @property
    def num_spoof(self) -> int:
        """How many trials are spoof."""
        return len(self.trials) - self.num_bona_fide

    @property
    def attacks(self) -> tuple[str, ...]:
        """The names of the attacks, each once, sorted."""
        return tuple(sorted({trial.attack for trial in self.trials if not trial.is_bona_fide}))


def read_protocol(path: Path) -> Protocol:
    """Read a protocol file in the columns of ASVspoof 2019 LA.

    A line is `speaker utterance env attack key` (ASVspoof 2019 evaluation plan; env is "-" in LA). Some redistributed
    copies drop the third column, so utterance is the second, attack the second last and key the last one. Blank lines,
    CRLF and a byte-order mark are fine.

    Raises UserError, naming the file and the line, for a file that cannot be read, is not text or is empty, for a line
    that cannot be understood, an utterance that comes twice, and a protocol that has only one of the two classes.
    """
    content = read_bytes(path, "protocol", "check --protocols_path and --database_path")
    trials: list[Trial] = []
    first_lines: dict[str, int] = {}
    for line_number, line in enumerate(decoded(content, path, "protocol").split("\n"), start=1):
        columns = line.split()
        if not columns:
            continue
        trial = _parse_trial(columns, f"{path}, line {line_number}")
        if trial.utterance in first_lines:
            raise UserError(
                f"{path}, line {line_number}: an utterance may come only once, found {trial.utterance} "
                f"again after line {first_lines[trial.utterance]}: remove one of the two lines"
            )
        first_lines[trial.utterance] = line_number
        trials.append(trial)
    protocol = Protocol(path=path, trials=tuple(trials), content_sha256=hashlib.sha256(content).hexdigest())
    _require_both_classes(protocol)
    return protocol


def _parse_trial(columns: list[str], place: str) -> Trial:
    line = shortened(columns)
    if len(columns) < 4:
        raise UserError(f"{place}: a protocol line has at least 4 columns, found {len(columns)} (`{line}`): {_LAYOUT}")
    speaker, utterance, attack, key = columns[0], columns[1], columns[-2], columns[-1]
    if key not in _KEYS:
        raise UserError(f"{place}: the last column is `bonafide` or `spoof`, found `{key}` (`{line}`): {_LAYOUT}")
    if _KEYS[key] and attack != NO_ATTACK:
        raise UserError(
            f"{place}: a bonafide line has `-` before its key, found the attack `{attack}` "
            f"(`{line}`): correct the attack or the key"
        )
    return Trial(speaker=speaker, utterance=utterance, attack=attack, is_bona_fide=_KEYS[key])


def _require_both_classes(protocol: Protocol) -> None:
    if not protocol.trials:
        raise UserError(f"{protocol.path}: the protocol is empty: copy it again, or pass another --protocols_path")
    if protocol.num_bona_fide == 0 or protocol.num_spoof == 0:
        raise UserError(
            f"{protocol.path}: a protocol needs both bonafide and spoof lines, found {protocol.num_bona_fide} bonafide "
            f"and {protocol.num_spoof} spoof in its {len(protocol)} lines: an EER is not defined for one class"
        )
