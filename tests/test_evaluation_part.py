"""What an evaluation is about, where a folder holds several corpora or a file names the trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_corpus
from tests.small_audio import write_sounds
from tests.test_asvspoof_2021 import DF_KEYS, make_set
from utils.corpora import PROTOCOLS_FOLDER, find_evaluation_part
from utils.errors import UserError


@pytest.fixture
def la_2019(tmp_path: Path) -> Path:
    """A tree with an evaluation part: three trials, one of them bona fide."""
    folder = write_corpus(tmp_path / "LA", train=2, dev=2)
    write_sounds(folder / "ASVspoof2019_LA_eval" / "flac", [f"LA_E_{n}.flac" for n in range(3)])
    lines = ["LA_0001 LA_E_0 - - bonafide", "LA_0001 LA_E_1 - A07 spoof", "LA_0002 LA_E_2 - A08 spoof"]
    (folder / PROTOCOLS_FOLDER / "ASVspoof2019.LA.cm.eval.trl.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("track", ["DF", "LA", "In-the-Wild"])
def test_any_track_works_on_an_asvspoof_2019_tree(la_2019: Path, track: str) -> None:
    part = find_evaluation_part(la_2019.parent, track=track)
    assert (part.layout, part.name, len(part)) == ("ASVspoof 2019 LA", "eval", 3)
    assert part.protocol.attacks == ("A07", "A08")


def test_the_set_of_the_track_goes_before_the_tree_that_it_lies_in(la_2019: Path) -> None:
    make_set(la_2019, "DF", DF_KEYS)
    assert find_evaluation_part(la_2019, track="DF").layout == "ASVspoof 2021 DF"
    assert find_evaluation_part(la_2019, track="LA").layout == "ASVspoof 2019 LA"


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("LA_0001 LA_E_1 - A07 spoof\n", [0]),
        ("LA_0001 LA_E_1 A07 spoof\nLA_0001 LA_E_0 - bonafide\n", [0, 1]),
        ("LA_E_2\nLA_E_0\n", [None, None]),
        ("path,label\nLA_E_2.flac,spoof\n", [0]),
        ("s LA_E_2 alaw ita_tx A07 spoof notrim eval\ns LA_E_0 none - - bonafide notrim progress\n", [0]),
    ],
)
def test_a_file_may_name_the_trials_in_any_format(la_2019: Path, text: str, labels: list[int | None]) -> None:
    file = la_2019.parent / "trials.txt"
    file.write_text(text)
    part = find_evaluation_part(la_2019, file)
    assert list(part.protocol.labels) == labels
    assert all(path.is_file() for path in part.audio_paths)


def test_a_file_may_name_trials_of_the_training_part(la_2019: Path) -> None:
    """A protocol of dev, to measure what was validated on."""
    file = la_2019 / PROTOCOLS_FOLDER / "ASVspoof2019.LA.cm.dev.trl.txt"
    assert find_evaluation_part(la_2019, file).audio_paths[0].parent == la_2019 / "ASVspoof2019_LA_dev" / "flac"


def test_a_corpus_without_an_evaluation_part_is_evaluated_on_its_development_part(tmp_path: Path) -> None:
    write_corpus(tmp_path, train=2, dev=2)
    assert find_evaluation_part(tmp_path).name == "dev"


def test_a_folder_without_anything_to_evaluate_on_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has nothing to evaluate on: .* ASVspoof2021_LA_eval/flac or .*meta\.csv"):
        find_evaluation_part(tmp_path)


def test_a_file_of_another_kind_is_refused_with_what_it_should_be(la_2019: Path) -> None:
    file = la_2019.parent / "notes.txt"
    file.write_text("one two three\nfour five six\n")
    with pytest.raises(UserError, match=r"notes\.txt, line 1: this is no protocol that is known, found 3 columns"):
        find_evaluation_part(la_2019, file)


def test_a_protocol_that_is_not_there_is_refused_with_the_flag(la_2019: Path) -> None:
    with pytest.raises(UserError, match=r"--protocols_path .*nowhere\.txt has no protocols: found no such"):
        find_evaluation_part(la_2019, la_2019 / "nowhere.txt")
