"""Protocol files: what is read from them, and what is refused with which words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from utils.corpora.protocols import Protocol, Trial, read_protocol
from utils.errors import UserError

TWO_LINES = "LA_0079 LA_T_1138215 - - bonafide\nLA_0079 LA_T_1271820 - A01 spoof\n"


def _read(folder: Path, content: str | bytes) -> Protocol:
    path = folder / "protocol.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_protocol(path)


def test_the_five_columns_of_asvspoof_2019_la_are_read(tmp_path: Path) -> None:
    assert _read(tmp_path, TWO_LINES).trials == (
        Trial(speaker="LA_0079", utterance="LA_T_1138215", attack="-", is_bona_fide=True),
        Trial(speaker="LA_0079", utterance="LA_T_1271820", attack="A01", is_bona_fide=False),
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("LA_0079 LA_T_1138215 - bonafide\nLA_0079 LA_T_1271820 A01 spoof\n", "copies that drop the third column"),
        (TWO_LINES.replace("\n", "\r\n"), "CRLF"),
        (TWO_LINES + "\n  \n\n", "blank lines at the end"),
        (TWO_LINES.rstrip("\n"), "no end of line at the end"),
        (TWO_LINES.replace(" ", "\t"), "tabs"),
        ("\ufeff" + TWO_LINES, "a byte-order mark"),
    ],
)
def test_variants_of_the_same_protocol_give_the_same_trials(tmp_path: Path, content: str, reason: str) -> None:
    assert _read(tmp_path, content).trials == _read(tmp_path, TWO_LINES).trials, reason


def test_a_protocol_knows_its_labels_counts_and_attacks(tmp_path: Path) -> None:
    protocol = _read(tmp_path, TWO_LINES + "LA_0080 LA_T_3 - A04 spoof\nLA_0081 LA_T_4 - A01 spoof\n")
    assert protocol.labels == (1, 0, 0, 0)
    assert (len(protocol), protocol.num_bona_fide, protocol.num_spoof) == (4, 1, 3)
    assert protocol.attacks == ("A01", "A04")


def test_the_content_hash_is_that_of_the_bytes_of_the_file(tmp_path: Path) -> None:
    assert _read(tmp_path, TWO_LINES).content_sha256 == hashlib.sha256(TWO_LINES.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TWO_LINES + "LA_0080 LA_T_3 - A04 unknown\n", ["line 3", "`unknown`", "`bonafide` or `spoof`"]),
        (TWO_LINES + "\nLA_T_3 A04 spoof\n", ["line 4", "4 columns", "found 3", "`LA_T_3 A04 spoof`"]),
        (TWO_LINES + "LA_0080 LA_T_1138215 - A04 spoof\n", ["line 3", "LA_T_1138215", "after line 1"]),
        (TWO_LINES + "LA_0080 LA_T_3 - A04 bonafide\n", ["line 3", "`A04`", "correct the attack or the key"]),
        ("\n\n", ["is empty"]),
        ("LA_0079 LA_T_1 - A01 spoof\n", ["0 bonafide", "1 spoof"]),
        ("LA_0079 LA_T_1 - - bonafide\n", ["1 bonafide", "0 spoof"]),
        (TWO_LINES.encode() + b"fLaC\0\0\0\x22", ["line 3", "zero byte", "text file"]),
        (TWO_LINES.encode() + b"\0" * 20, ["line 3", "zero byte"]),
    ],
)
def test_a_wrong_protocol_is_refused_with_its_place_and_what_was_found(
    tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    with pytest.raises(UserError) as refused:
        _read(tmp_path, content)
    for word in [*words, str(tmp_path / "protocol.txt")]:
        assert word in str(refused.value)


def test_a_missing_protocol_is_refused_with_the_flag_to_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.txt.*No such file.*--protocols_path"):
        read_protocol(tmp_path / "nowhere.txt")


def test_a_bona_fide_trial_with_an_attack_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="A01"):
        Trial(speaker="a", utterance="b", attack="A01", is_bona_fide=True)
