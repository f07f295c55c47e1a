"""What is no corpus is told with what lies there and the one thing that would make it one; links and hidden files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from main import main
from tests.small_audio import write_sounds
from utils.audio.finding import audio_below
from utils.corpora import find_corpus
from utils.corpora.class_folders import scan_folders
from utils.corpora.finding import find_all_layouts
from utils.corpora.unknown import Findings, advice
from utils.errors import UserError

ROWS = "".join(f"{n}.wav,{'bonafide' if n % 2 else 'spoof'}\n" for n in range(10))
WAVS = [f"{n}.wav" for n in range(10)]


def files(**contents: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name.replace("_", ".")).write_text(content)

    return make


def folders(*names: str) -> Callable[[Path], None]:
    return lambda folder: write_sounds(folder, [f"{name}/a.wav" for name in names])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (files(all_csv="path,verdict\n"), "name the column of all.csv that holds bonafide or spoof `label`"),
        (files(all_csv="clip;label\n"), "name the column of all.csv that holds the names of the files `path`"),
        (files(all_tsv="clip\tverdict\n"), "all.tsv begins `clip, verdict`: give all.tsv the header path,label"),
        (files(train_csv="path,label\n" + ROWS, test_csv="path,label\n"), "add dev.csv, a table as test.csv is"),
        (files(a_csv="path,label\n", b_csv="path,label\n"), "one of the 2 tables (a.csv, b.csv) as --protocols_path"),
        (files(t_csv="path:label\na.wav:spoof\n", a_wav=""), "found t.csv, a.wav: give t.csv the header path,label"),
        (files(t_CSV="", a_wav=""), "found t.CSV, a.wav: give t.CSV the header path,label"),
        (folders("real"), "found real: add the folder spoof/ beside real/"),
        (folders("deepfake"), "add the folder bonafide/ beside deepfake/"),
        (folders("wavs"), "found wavs: move what is in wavs into bonafide/ and spoof/, or add a table with the header"),
        (folders("sub/bonafide", "sub/spoof"), "found sub: pass --database_path {}/sub"),
        (folders("sub/mine/real", "sub/mine/fake"), "pass --database_path {}/sub/mine"),
        (lambda folder: os.mkfifo(folder / "all.csv"), "put a table in the place of all.csv (it is a named pipe"),
        (lambda folder: (folder / "all.csv").mkdir(), "put a table in the place of all.csv (it is a folder"),
        (lambda folder: None, "found an empty folder: pass the folder that holds one of these"),
    ],
)  # fmt: skip
def test_an_unknown_corpus_is_told_with_the_one_thing_that_would_make_it_known(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match="is not a corpus that is known") as refused:
        find_corpus(tmp_path)
    assert words.format(tmp_path) in str(refused.value)
    with pytest.raises(UserError):
        find_all_layouts(tmp_path)


def test_the_nearest_to_a_corpus_decides_what_is_advised() -> None:
    everything = Findings(
        headers={"a.csv": ("path", "verdict")}, classes={"real": True}, folders=("real",), corpora=(Path("x/y"),)
    )
    assert advice(everything) == "pass --database_path x/y"
    without: Mapping[str, object] = {**vars(everything), "corpora": ()}
    assert advice(Findings(**without)).startswith("name the column of a.csv")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_protocols_that_are_no_file_are_refused_at_once(kind: str, tmp_path: Path) -> None:
    place = Path("/dev/zero") if kind == "device" else tmp_path / "pipe"
    if kind == "pipe":
        os.mkfifo(place)
    with pytest.raises(UserError, match=rf"--protocols_path {place}: it is a (named )?{kind}, not a file: pass"):
        find_corpus(tmp_path, place)


@pytest.mark.parametrize(("name", "mark"), [("all.tsv", "\t"), ("mine.csv", ";"), ("mine.txt", ",")])
def test_what_was_read_before_goes_before_what_is_read_now(name: str, mark: str, tmp_path: Path) -> None:
    """Class folders with a list of names beside them stay class folders."""
    write_sounds(tmp_path, [f"{name}/{n}.wav" for name in ("bonafide", "spoof") for n in range(5)])
    write_sounds(tmp_path, WAVS)
    (tmp_path / name).write_text(f"path,label\n{ROWS}".replace(",", mark))
    assert find_corpus(tmp_path).layout == "class-folder"
    (tmp_path / "all.csv").write_text("path,label\n" + ROWS)
    assert find_corpus(tmp_path).train.protocol.path == tmp_path / "all.csv"


def test_folders_of_other_words_are_not_guessed_at_where_tables_lie_beside_them(tmp_path: Path) -> None:
    write_sounds(tmp_path, [f"{name}/{n}.wav" for name in ("Real", "FAKE") for n in range(5)])
    corpus = find_corpus(tmp_path)
    assert corpus.notes == ("class folders: 'FAKE' read as spoof, 'Real' as bona fide",)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("path,label\n" + ROWS)
    with pytest.raises(UserError, match=r"pass one of the 2 tables"):
        find_corpus(tmp_path)


def test_a_link_to_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_sounds(tmp_path, [f"{label}/{n}.wav" for label in ("bonafide", "spoof") for n in range(10)])
    (tmp_path / "spoof" / "A2").symlink_to("/a/disk/that/is/not/there")
    assert find_corpus(tmp_path).train.protocol.notes == (
        f"links that lead nowhere, so that what they led to is missing: {tmp_path}/spoof/A2",
    )
    assert audio_below(tmp_path).left_out() == [
        f"Missing: what was behind links that lead nowhere ({tmp_path}/spoof/A2)"
    ]


def test_linked_folders_are_followed_once_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    write_sounds(data, [f"{name}/{n}.wav" for name in ("bonafide", "spoof/A1") for n in range(5)])
    write_sounds(tmp_path / "store" / "A2", WAVS[:5])
    (data / "spoof" / "A2").symlink_to(tmp_path / "store" / "A2")
    (data / "spoof" / "again").symlink_to(data / "spoof" / "A1")
    (data / "spoof" / "real").symlink_to(data / "bonafide")
    (data / "spoof" / "up").symlink_to(tmp_path)
    (tmp_path / "store" / "A2" / "circle").symlink_to(tmp_path / "store")
    scanned = scan_folders(data, data)
    assert sum(trial.is_bona_fide is False for trial in scanned.trials) == 10
    assert {trial.attack for trial in scanned.trials} == {"-", "A1", "A2"}
    followed, passed_over = scanned.notes
    assert followed == f"links to folders that were followed: {data}/spoof/A2, {data}/spoof/A2/circle"
    assert passed_over.endswith(f"{data}/spoof/again, {data}/spoof/real, {data}/spoof/up")
    assert main(["--check_data", str(data)]) == 0
    assert "links to folders that were followed" in capsys.readouterr().out


def test_hidden_files_are_no_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Mac leaves a `._x.wav` with other things in it beside x.wav on disks of other systems."""
    for name in ("bonafide", "spoof"):
        write_sounds(tmp_path / name, WAVS)
        for wav in WAVS:
            (tmp_path / name / f"._{wav}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    assert main(["--check_data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "16 train and 4 dev utterances" in said and "not named    0 other" in said


def test_class_folders_with_a_name_that_is_not_utf_8_are_read(tmp_path: Path) -> None:
    for name in ("bonafide", "spoof"):
        write_sounds(tmp_path / name, WAVS)
    (tmp_path / "spoof" / "0.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/spoof/caf\xe9.wav"))
    corpus = find_corpus(tmp_path)
    assert len(corpus.train) + len(corpus.dev) == 20
