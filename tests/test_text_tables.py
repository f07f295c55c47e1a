"""One reader of tables: the same rows from every way to write them, and what is wrong is named by its line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from main import main
from tests.small_audio import write_sounds
from utils import table_bytes
from utils.corpora import find_corpus
from utils.corpora.protocols import read_protocol, scan_protocol
from utils.errors import UserError
from utils.scores.asv_scores import read_asv_error_rates
from utils.scores.score_files import read_scores
from utils.scores.trial_keys import read_keys

NAMES = [f"{'real' if n % 2 else 'fake'}{n}" for n in range(10)]
LINES = ["path,label", *(f"{name}.wav,{'bonafide' if name.startswith('real') else 'spoof'}" for name in NAMES)]
TABLE = "\n".join(LINES) + "\n"

# How a table may be written, and why; all of them hold the same trials.
WAYS: dict[str, tuple[str, bytes]] = {
    "as published": ("all.csv", TABLE.encode()),
    "CRLF, as Windows": ("all.csv", TABLE.replace("\n", "\r\n").encode()),
    "CR, as old Macs": ("all.csv", TABLE.replace("\n", "\r").encode()),
    "semicolons, as Excel in half of Europe": ("all.csv", TABLE.replace(",", ";").encode()),
    "bars, as MLAAD": ("all.csv", TABLE.replace(",", "|").encode()),
    "tabs, .tsv": ("all.tsv", TABLE.replace(",", "\t").encode()),
    "spaces, .txt": ("all.txt", TABLE.replace(",", " ").encode()),
    "a byte-order mark": ("all.csv", b"\xef\xbb\xbf" + TABLE.encode()),
    "UTF-16 with its mark": ("all.csv", TABLE.encode("utf-16")),
    "UTF-16 without, little end first": ("all.csv", TABLE.encode("utf-16-le")),
    "UTF-16 without, big end first": ("all.csv", TABLE.encode("utf-16-be")),
    "blank lines": ("all.csv", ("\n \n" + TABLE.replace("\n", "\n\n")).encode()),
    "comments": ("all.csv", ("# of 2026\n#\n" + TABLE.replace("\n", "\n# checked\n", 1)).encode()),
    "a header behind a #": ("all.csv", ("#" + TABLE).encode()),
    "quotes around cells": ("all.csv", TABLE.replace("fake2.wav", '"fake2.wav"').encode()),
    "names of the columns in any case": ("all.csv", TABLE.replace("path,label", "Filename,Label").encode()),
    "no end of the last line": ("all.csv", TABLE.rstrip().encode()),
}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    write_sounds(tmp_path / "data", [f"{name}.wav" for name in NAMES])
    return tmp_path / "data"


def put(database: Path, content: bytes | str, name: str = "all.csv") -> Path:
    (database / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return database / name


@pytest.mark.parametrize("way", WAYS)
def test_check_training_and_keys_read_the_same_trials_however_the_table_is_written(
    way: str, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content = WAYS[way]
    table = put(database, content, name)
    corpus = find_corpus(database)
    trained_on = {t.utterance: t.is_bona_fide for part in (corpus.train, corpus.dev) for t in part.protocol.trials}
    assert trained_on == {name: name.startswith("real") for name in NAMES}
    keys = read_keys(table)
    assert dict(zip(keys.utterances, keys.is_bona_fide.tolist(), strict=True)) == trained_on
    assert main(["--check_data", str(database), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["corpora"][0]["parts"]
    assert [part["trials"] for part in parts] == [len(corpus.train), len(corpus.dev)]


@pytest.mark.parametrize(
    ("content", "words", "reason"),
    [
        (TABLE.replace("fake4", '"fake4'), 'line 6: the quote (") that is opened in this line', "up to the end"),
        (
            TABLE.replace("fake4", '"fake4').replace("real7.wav", 'real7"'),
            'line 6: the quote (") that is opened in this line is not closed before line 7, a row of its own',
            "up to the next quote",
        ),
        (
            "\n".join(
                [f"{line},hi" for line in LINES[:5]] + [f'{LINES[5]},"hi'] + [f"{line},hi" for line in LINES[6:]]
            ),
            "line 6: the quote",
            "in a column that nobody reads",
        ),
        (TABLE.replace("fake4", '"fake4') * 3000, "line 6: the quote", "longer than the reader of CSV takes"),
        (TABLE.replace("fake4", "fake\0"), "line 6: a protocol is a text file, found a zero byte", "a zero byte"),
        (TABLE + "one\n", "line 12: a protocol line has 2 columns, found 1", "a short line"),
        (TABLE + "one,spoof,3\n", "line 12: a protocol line has 2 columns, found 3", "a long line"),
        (TABLE.replace("path,label", "path,label,label"), "line 1: two columns have the name `label`", "a name twice"),
        (TABLE.encode("utf-16")[:-1], "it begins as UTF-16, and its byte", "half a character"),
        (TABLE.replace("spoof", "fishy", 1), "line 2: the key is `bonafide` or `spoof`, found `fishy`", "no label"),
        (TABLE.replace("path,label", "path,verdict"), "one for labels, found path, verdict: name them", "no label"),
        ("# nothing\n", "the protocol file is empty", "comments alone"),
    ],
)
def test_what_is_wrong_is_refused_by_its_line_in_training_and_in_the_check(
    content: str | bytes, words: str, reason: str, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = put(database, content)
    with pytest.raises(UserError) as refused:
        scan_protocol(table).protocol()
    assert words in str(refused.value), reason
    with pytest.raises(UserError):
        read_keys(table)
    assert main(["--check_data", str(database), "--protocols_path", str(table), "--json"]) == 1, reason
    assert "Nothing stands in the way" not in capsys.readouterr().out


def test_a_cell_in_quotes_may_go_over_lines_that_are_no_rows(database: Path) -> None:
    lines = [
        "path,label,text",
        *(f'{line},"one,\n{name} said ""so""\nin the end"' for line, name in zip(LINES[1:], NAMES, strict=True)),
    ]
    protocol = read_protocol(put(database, "\n".join(lines) + "\n"), None)
    assert [trial.utterance for trial in protocol.trials] == NAMES


def test_quotes_inside_a_name_are_part_of_it(database: Path) -> None:
    table = put(database, 'path,label\nthe 12" mix.wav,spoof\n"say ""hi"".wav",bonafide\n')
    write_sounds(database, ['the 12" mix.wav', 'say "hi".wav'])
    assert [trial.utterance for trial in read_protocol(table, None).trials] == ['the 12" mix', 'say "hi"']
    assert read_keys(table).utterances == ('the 12" mix', 'say "hi"')


def test_a_line_number_is_that_of_an_editor_behind_cells_of_several_lines(database: Path) -> None:
    table = put(database, 'path,label,text\na.wav,spoof,"two\nlines"\nb.wav,fishy,one\n')
    assert "line 4: the key" in scan_protocol(table).faults[0].message


def test_a_name_that_is_not_utf_8_finds_the_file_of_these_bytes(database: Path) -> None:
    source, odd = os.fsencode(database / "fake0.wav"), os.fsencode(database) + b"/caf\xe9.wav"
    shutil.copy(source, odd)
    put(database, TABLE.encode().replace(b"fake0.wav", b"caf\xe9.wav"))
    corpus = find_corpus(database)
    paths = {os.fsencode(path) for part in (corpus.train, corpus.dev) for path in part.audio_paths}
    assert odd in paths and source not in paths


@pytest.mark.parametrize(
    "read", [read_scores, read_keys, lambda path: read_asv_error_rates(path, "eval"), read_protocol]
)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "it is a named pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
        (lambda path: None, "No such file"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    make: Callable[[Path], object], words: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "x.csv")
    with pytest.raises(UserError, match=words):
        read(tmp_path / "x.csv")


def test_a_file_too_large_for_a_table_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.csv"
    path.write_text(TABLE * 100)
    with path.open("r+b") as file:
        file.truncate(100 * table_bytes.MOST_BYTES)
    with pytest.raises(UserError, match=r"huge\.csv: a key file has at most 536\.9 MB, found more"):
        read_keys(path)
    monkeypatch.setattr(table_bytes, "MOST_BYTES", 5000)
    path.write_text(TABLE * 100)
    with pytest.raises(UserError, match=r"a score file has at most 5\.0 kB, found more"):
        read_scores(path)


@pytest.mark.parametrize("mark", [",", ";", "|", "\t", " "])
def test_scores_and_keys_without_a_header_are_divided_by_what_makes_them_known(mark: str, tmp_path: Path) -> None:
    scores, keys, asv = tmp_path / "scores.txt", tmp_path / "keys.txt", tmp_path / "asv.txt"
    scores.write_text("a 0.5\nb 1\n".replace(" ", mark))
    keys.write_text("s a - A01 spoof\ns b - - bonafide\n".replace(" ", mark))
    asv.write_text("x target 1.5\nx nontarget 0.5\nx spoof 1\n".replace(" ", mark))
    assert np.array_equal(read_scores(scores).scores, [0.5, 1])
    assert read_keys(keys).utterances == ("a", "b")
    assert [trial.label for trial in read_protocol(keys).trials] == [0, 1]
    assert read_asv_error_rates(asv, "eval")


def test_a_row_that_a_quote_swallows_is_noticed_in_scores_too(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text('filename,cm-score\n"a,1\nb,2\nc",3\n')
    with pytest.raises(UserError, match=r'line 2: the quote \("\) that is opened in this line is not closed before'):
        read_scores(path)
