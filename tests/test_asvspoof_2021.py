"""ASVspoof 2021 LA and DF as they are published: lists of trials, keys apart from them, subsets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.small_audio import write_sounds
from utils.corpora import find_corpus, find_evaluation_part
from utils.errors import UserError

LA_KEYS = (
    "LA_0009 LA_E_1 alaw ita_tx A07 spoof notrim eval\n"
    "LA_0009 LA_E_2 none - bonafide bonafide notrim progress\n"
    "LA_0021 LA_E_3 gsm loc_tx bonafide bonafide only_speech hidden_track\n"
)
DF_KEYS = (
    "LA_0023 DF_E_1 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    "TEF2 DF_E_2 low_mp3 vcc2020 Task1-team20 spoof notrim eval neural_vocoder_autoregressive Task1 team20 FF E\n"
    "LA_0030 DF_E_3 low_mp3 asvspoof - bonafide notrim eval bonafide - - - -\n"
)


def make_set(database: Path, track: str, keys: str | None) -> Path:
    own = database / f"ASVspoof2021_{track}_eval"
    write_sounds(own / "flac", [f"{track}_E_{number}.flac" for number in (1, 2, 3)])
    (own / f"ASVspoof2021.{track}.cm.eval.trl.txt").write_text("".join(f"{track}_E_{n}\n" for n in (3, 1, 2)))
    if keys:
        folder = database / "keys" / track / "CM"
        folder.mkdir(parents=True)
        (folder / "trial_metadata.txt").write_text(keys)
    return own


def test_official_figures_are_those_of_the_subset_eval(tmp_path: Path) -> None:
    make_set(tmp_path, "DF", DF_KEYS)
    part = find_evaluation_part(tmp_path)
    assert (part.layout, part.subset) == ("ASVspoof 2021 DF", "eval")
    assert [(trial.utterance, trial.label) for trial in part.protocol.trials] == [("DF_E_2", 0), ("DF_E_3", 1)]
    assert [path.name for path in part.audio_paths] == ["DF_E_2.flac", "DF_E_3.flac"]


def test_a_trial_carries_what_the_keys_say_of_it(tmp_path: Path) -> None:
    make_set(tmp_path, "LA", LA_KEYS)
    spoof, bona_fide, hidden = find_evaluation_part(tmp_path, track="LA", subset="all").protocol.trials
    assert (spoof.speaker, spoof.attack, spoof.codec, spoof.subset) == ("LA_0009", "A07", "alaw", "eval")
    assert (bona_fide.attack, bona_fide.codec, bona_fide.label) == ("-", "none", 1)
    assert hidden.subset == "hidden"


@pytest.mark.parametrize(
    ("subset", "utterances"),
    [
        (None, ["LA_E_1"]),
        ("eval", ["LA_E_1"]),
        ("progress", ["LA_E_2"]),
        ("hidden", ["LA_E_3"]),
        ("all", ["LA_E_1", "LA_E_2", "LA_E_3"]),
    ],
)
def test_a_subset_is_chosen_by_its_name(tmp_path: Path, subset: str | None, utterances: list[str]) -> None:
    make_set(tmp_path, "LA", LA_KEYS)
    part = find_evaluation_part(tmp_path, track="LA", subset=subset)
    assert [trial.utterance for trial in part.protocol.trials] == utterances


def test_without_keys_the_trials_of_the_list_have_no_label(tmp_path: Path) -> None:
    part = find_evaluation_part(make_set(tmp_path, "DF", None))
    assert [(trial.utterance, trial.label) for trial in part.protocol.trials] == [
        ("DF_E_3", None),
        ("DF_E_1", None),
        ("DF_E_2", None),
    ]
    assert (part.subset, part.protocol.num_bona_fide, part.protocol.num_spoof) == ("all", 0, 0)


def test_a_trial_of_the_list_that_the_keys_do_not_know_is_kept_without_a_label(tmp_path: Path) -> None:
    make_set(tmp_path, "DF", DF_KEYS.partition("\n")[2])
    labels = {t.utterance: t.label for t in find_evaluation_part(tmp_path, subset="all").protocol.trials}
    assert labels == {"DF_E_2": 0, "DF_E_3": 1, "DF_E_1": None}


@pytest.mark.parametrize("below", ["keys/DF/CM", "DF/CM", "CM", ""])
def test_keys_are_found_in_the_protocols_folder_however_deep(tmp_path: Path, below: str) -> None:
    own = make_set(tmp_path / "data", "DF", None)
    (tmp_path / "elsewhere" / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere" / below / "trial_metadata.txt").write_text(DF_KEYS)
    assert len(find_evaluation_part(own, tmp_path / "elsewhere")) == 2


def test_the_track_chooses_between_two_sets_in_one_folder(tmp_path: Path) -> None:
    make_set(tmp_path, "LA", LA_KEYS)
    make_set(tmp_path, "DF", DF_KEYS)
    assert find_evaluation_part(tmp_path, track="LA").layout == "ASVspoof 2021 LA"
    assert find_evaluation_part(tmp_path, track="DF").layout == "ASVspoof 2021 DF"


def test_the_default_track_takes_the_only_set_that_is_there(tmp_path: Path) -> None:
    make_set(tmp_path, "LA", LA_KEYS)
    assert find_evaluation_part(tmp_path).layout == "ASVspoof 2021 LA"


def test_a_subset_without_keys_is_refused(tmp_path: Path) -> None:
    make_set(tmp_path, "DF", None)
    with pytest.raises(UserError, match=r"--subset eval:.* has no subsets: leave --subset out"):
        find_evaluation_part(tmp_path, subset="eval")


def test_missing_audio_is_counted_and_named(tmp_path: Path) -> None:
    own = make_set(tmp_path, "DF", DF_KEYS)
    (own / "flac" / "DF_E_3.flac").unlink()
    with pytest.raises(UserError, match=r"flac: 1 of 2 utterances of .*trial_metadata.txt have no audio .*DF_E_3"):
        find_evaluation_part(tmp_path)


def test_training_on_an_evaluation_set_is_refused_with_what_to_do(tmp_path: Path) -> None:
    make_set(tmp_path, "DF", DF_KEYS)
    with pytest.raises(UserError, match=r"holds ASVspoof 2021 DF, a set for evaluation .*train on another corpus"):
        find_corpus(tmp_path)
