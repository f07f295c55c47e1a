"""In-the-Wild as it is published: meta.csv with a hyphenated label and quoted names, beside 0.wav, 1.wav ..."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_audio import write_sounds
from utils.corpora import find_corpus, find_evaluation_part
from utils.errors import UserError

META = 'file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,"Obama, Barack",bona-fide\n2.wav,Alec Guinness,bona-fide\n'


def make_set(folder: Path) -> Path:
    write_sounds(folder, ["0.wav", "1.wav", "2.wav"])
    (folder / "meta.csv").write_text(META)
    return folder


@pytest.mark.parametrize("database", ["", "release_in_the_wild"])
def test_the_folder_or_its_parent_is_the_set(tmp_path: Path, database: str) -> None:
    own = make_set(tmp_path / "release_in_the_wild")
    part = find_evaluation_part(tmp_path / database, track="In-the-Wild")
    assert (part.layout, part.subset) == ("In-the-Wild", "all")
    assert list(part.audio_paths) == [own / "0.wav", own / "1.wav", own / "2.wav"]


def test_labels_with_a_hyphen_and_names_in_quotes_are_read(tmp_path: Path) -> None:
    spoof, bona_fide, _ = find_evaluation_part(make_set(tmp_path)).protocol.trials
    assert (spoof.utterance, spoof.speaker, spoof.label) == ("0", "Alec Guinness", 0)
    assert (bona_fide.utterance, bona_fide.speaker, bona_fide.label) == ("1", "Obama, Barack", 1)


def test_meta_csv_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "audio")
    (tmp_path / "meta").mkdir()
    (folder / "meta.csv").rename(tmp_path / "meta" / "meta.csv")
    assert len(find_evaluation_part(folder, tmp_path / "meta", track="In-the-Wild")) == 3


@pytest.mark.parametrize("ids", ["0\n2\n", "0.wav\n2.wav\n"])
def test_a_list_of_ids_with_or_without_suffix_is_a_set_without_labels(tmp_path: Path, ids: str) -> None:
    make_set(tmp_path)
    (tmp_path / "ids.txt").write_text(ids)
    part = find_evaluation_part(tmp_path, tmp_path / "ids.txt", track="In-the-Wild")
    assert [path.name for path in part.audio_paths] == ["0.wav", "2.wav"]
    assert [(trial.utterance, trial.label) for trial in part.protocol.trials] == [("0", None), ("2", None)]


def test_it_is_not_trained_on_unless_meta_csv_is_named(tmp_path: Path) -> None:
    make_set(tmp_path)
    with pytest.raises(UserError, match="holds In-the-Wild, a set for evaluation"):
        find_corpus(tmp_path)
