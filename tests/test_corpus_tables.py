"""Corpora with plain tables: where the paths lead, which parts there are, and how one table is divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.small_audio import write_sounds
from utils.corpora import Corpus, find_corpus, find_evaluation_part
from utils.corpora.division import development_positions
from utils.corpora.trials import Trial
from utils.errors import UserError

ROWS = [(f"{'real' if n % 2 else 'fake'}/{n}.wav", "bonafide" if n % 2 else "spoof", f"s{n // 2}") for n in range(20)]


def write_table(path: Path, rows: Sequence[tuple[str, ...]], header: str = "path,label,speaker") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def utterances(corpus: Corpus) -> tuple[set[str], set[str]]:
    train, dev = corpus.train.protocol.trials, corpus.dev.protocol.trials
    return {trial.utterance for trial in train}, {trial.utterance for trial in dev}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    write_sounds(tmp_path / "data", [name for name, _, _ in ROWS])
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("dev", "evaluation"), [("dev.csv", "eval.csv"), ("val.csv", "test.csv"), ("Val.csv", "TEST.CSV")]
)
def test_a_table_for_each_part_in_the_database(database: Path, dev: str, evaluation: str) -> None:
    write_table(database / "train.csv", ROWS[:12])
    write_table(database / dev, ROWS[12:16])
    write_table(database / evaluation, ROWS[16:])
    corpus = find_corpus(database)
    assert (corpus.layout, len(corpus.train), len(corpus.dev)) == ("CSV", 12, 4)
    assert corpus.train.audio_paths[1] == database / "real" / "1.wav"
    assert len(find_evaluation_part(database)) == 4


def test_tables_may_lie_elsewhere_with_paths_relative_to_the_database(database: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "lists" / "train.csv", ROWS[:12])
    write_table(tmp_path / "lists" / "dev.csv", ROWS[12:])
    assert len(find_corpus(database, tmp_path / "lists").train) == 12


def test_absolute_paths_and_paths_without_suffix_are_found(database: Path) -> None:
    rows = [(str(database / ROWS[0][0]), *ROWS[0][1:]), (ROWS[1][0].removesuffix(".wav"), *ROWS[1][1:])]
    write_table(database / "train.csv", rows)
    write_table(database / "dev.csv", ROWS[2:4])
    assert [path.name for path in find_corpus(database).train.audio_paths] == ["0.wav", "1.wav"]


def test_paths_that_windows_wrote_are_found(database: Path) -> None:
    write_table(database / "mine.csv", [(name.replace("/", "\\"), *rest) for name, *rest in ROWS])
    corpus = find_corpus(database)
    assert len(corpus.train) + len(corpus.dev) == len(ROWS)
    assert corpus.train.audio_paths[0].parent.parent == database


def test_a_name_that_has_a_backslash_is_found_under_it(database: Path) -> None:
    write_sounds(database, ["a\\b.wav"])
    write_table(database / "mine.csv", [*ROWS, ("a\\b.wav", "spoof", "s0")])
    corpus = find_corpus(database)
    assert database / "a\\b.wav" in (*corpus.train.audio_paths, *corpus.dev.audio_paths)


def test_attack_and_speaker_are_read_whatever_the_order_of_the_columns(database: Path) -> None:
    rows = [("spoof", "TTS", ROWS[0][0], "ann"), ("bonafide", "", ROWS[1][0], "bob")]
    write_table(database / "train.csv", rows, "label,attack,path,speaker")
    write_table(database / "dev.csv", ROWS[2:4])
    spoof, bona_fide = find_corpus(database).train.protocol.trials
    assert (spoof.attack, spoof.speaker, spoof.label) == ("TTS", "ann", 0)
    assert (bona_fide.attack, bona_fide.speaker, bona_fide.label) == ("-", "bob", 1)


@pytest.mark.parametrize("column", ["split", "part"])
def test_one_table_is_divided_by_its_own_column(database: Path, tmp_path: Path, column: str) -> None:
    words = ["train"] * 12 + ["Validation"] * 4 + ["test"] * 4
    rows = [(*row, word) for row, word in zip(ROWS, words, strict=True)]
    table = write_table(tmp_path / "all.csv", rows, f"path,label,speaker,{column}")
    corpus = find_corpus(database, table)
    assert (len(corpus.train), len(corpus.dev)) == (12, 4)
    assert len(find_evaluation_part(database, table, trained_on=corpus.identity)) == 4
    assert corpus.division == f"the column `{column}` of all.csv"


def test_lines_of_one_table_that_are_of_no_part_are_told_and_not_left_out_without_a_word(database: Path) -> None:
    words = ["train"] * 8 + ["trian"] * 4 + ["dev"] * 4 + [""] * 4
    rows = [(*row, word) for row, word in zip(ROWS, words, strict=True)]
    write_table(database / "all.csv", rows, "path,label,speaker,split")
    corpus = find_corpus(database)
    assert (len(corpus.train), len(corpus.dev)) == (8, 4)
    assert corpus.train.protocol.notes == ("not used: 8 lines whose `split` is no part ('trian', '')",)
    assert corpus.dev.protocol.notes == ()


def test_one_table_without_such_a_column_is_divided_by_whole_speakers(database: Path) -> None:
    write_table(database / "mine.csv", ROWS)
    corpus = find_corpus(database)
    train, dev = corpus.train.protocol, corpus.dev.protocol
    assert (train.num_bona_fide, train.num_spoof, dev.num_bona_fide, dev.num_spoof) == (8, 8, 2, 2)
    assert not {trial.speaker for trial in train.trials} & {trial.speaker for trial in dev.trials}
    assert "a fifth of each class, whole speakers" in corpus.division


def test_the_division_is_the_same_every_time_and_changes_little_with_the_table(database: Path) -> None:
    write_table(database / "mine.csv", ROWS)
    first = utterances(find_corpus(database))
    write_table(database / "mine.csv", list(reversed(ROWS)))
    assert utterances(find_corpus(database)) == first


def test_the_content_hash_of_a_part_is_that_of_its_own_trials(database: Path) -> None:
    write_table(database / "mine.csv", ROWS)
    corpus = find_corpus(database)
    assert corpus.train.protocol.content_sha256 != corpus.dev.protocol.content_sha256
    write_table(database / "mine.csv", [*ROWS[:-1], (ROWS[-1][0], "spoof", ROWS[-1][2])])
    changed = find_corpus(database)
    assert (changed.train.protocol.content_sha256, changed.dev.protocol.content_sha256) != (
        corpus.train.protocol.content_sha256,
        corpus.dev.protocol.content_sha256,
    )


def trials(*speakers: tuple[str, bool]) -> list[Trial]:
    return [Trial(speaker, f"u{n}", "-", is_bona_fide) for n, (speaker, is_bona_fide) in enumerate(speakers)]


@pytest.mark.parametrize(
    ("given", "num_bona_fide", "num_spoof", "reason"),
    [
        (trials(*[("-", n % 10 == 0) for n in range(100)]), 2, 18, "without speakers, utterance by utterance"),
        (trials(*[("x", n < 5) for n in range(10)]), 0, 0, "one speaker cannot be divided"),
        (trials(("a", True), ("b", True), ("c", False), ("d", False)), 1, 1, "no speaker has both classes"),
        (trials(*[("big", True)] * 9, ("small", True), ("-", False), ("-", False)), None, 1, "of very uneven size"),
    ],
)
def test_a_division_takes_whole_speakers_and_leaves_both_classes(
    given: list[Trial], num_bona_fide: int | None, num_spoof: int, reason: str
) -> None:
    dev = [given[position] for position in development_positions(given)]
    assert sum(trial.is_bona_fide is False for trial in dev) == num_spoof, reason
    taken = sum(trial.is_bona_fide is True for trial in dev)
    assert taken == num_bona_fide if num_bona_fide is not None else 0 < taken < 10, reason


def test_a_table_that_cannot_be_divided_is_refused_with_two_ways_out(database: Path) -> None:
    write_table(database / "mine.csv", [(name, label, "one") for name, label, _ in ROWS])
    with pytest.raises(UserError, match=r"mine\.csv: .*add a column `split` .* or make train\.csv and dev\.csv"):
        find_corpus(database)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("real/1.wav", "genuin", "x"), r"train\.csv, line 6: the key is `bonafide` or `spoof`, found `genuin`"),
        ((*ROWS[0],), r"train\.csv, line 6: an utterance may come only once, found fake/0 again after line 2"),
        (("", "spoof", "x"), r"train\.csv, line 6: a line names an utterance, and ` spoof x` does not: write its name"),
        (("real/1.wav",), r"train\.csv, line 6: .* has 3 columns, found 1"),
        (("real/1.wav", "spoof", "x", "y"), r"train\.csv, line 6: .* has 3 columns, found 4"),
        (
            ("fake/0.flac", "spoof", "x"),
            r"line 6: .*fake/0 again after line 2: fake/0\.flac is another file, .*rename it",
        ),
        (("real/99.wav", "spoof", "x"), r"1 of 5 utterances of .*train\.csv have no audio file \(real/99\.wav\)"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(database: Path, row: tuple[str, ...], words: str) -> None:
    write_table(database / "train.csv", [*ROWS[:1], *ROWS[2:5], row])
    write_table(database / "dev.csv", ROWS[12:])
    with pytest.raises(UserError, match=words):
        find_corpus(database)


def test_a_protocol_that_is_no_table_is_not_divided_in_secret(database: Path, tmp_path: Path) -> None:
    (tmp_path / "trn.txt").write_text("s real/1 - - bonafide\ns fake/0 - A01 spoof\n")
    with pytest.raises(UserError, match=r"trn\.txt: to train on one file it must be a table with a header"):
        find_corpus(database, tmp_path / "trn.txt")


def test_without_a_table_for_evaluation_the_development_part_is_evaluated_and_not_what_training_does_not_read(
    database: Path,
) -> None:
    """Class folders beside the tables hold the same files, those of training too."""
    write_sounds(database, [f"{name}/{n}.wav" for name in ("bonafide", "spoof") for n in range(3)])
    write_table(database / "train.csv", ROWS[:12])
    write_table(database / "dev.csv", ROWS[12:])
    part = find_evaluation_part(database)
    assert (part.name, part.layout, len(part)) == ("dev", "CSV", 8)


def test_two_tables_of_unknown_names_are_not_guessed_at(database: Path) -> None:
    write_table(database / "a.csv", ROWS[:10])
    write_table(database / "b.csv", ROWS[10:])
    with pytest.raises(UserError, match=r"looked in .*train\.csv and dev\.csv.*found a\.csv, b\.csv"):
        find_corpus(database)


def test_the_table_of_in_the_wild_is_divided_where_it_is_named(database: Path) -> None:
    table = write_table(database / "meta.csv", [(name, who, label) for name, label, who in ROWS], "file,speaker,label")
    assert len(find_corpus(database, table).dev) == 4
