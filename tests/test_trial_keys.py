"""Key files as each corpus publishes them: what is read, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.scores.trial_keys import TrialKeys, read_keys

LA_2019 = "LA_0039 LA_E_1 - A11 spoof\nLA_0014 LA_E_2 - - bonafide\n"
LA_2021 = (
    "LA_0009 LA_E_1 alaw ita_tx A07 spoof notrim eval\n"
    "LA_0009 LA_E_2 none - bonafide bonafide notrim progress\n"
    "LA_0021 LA_E_3 gsm loc_tx bonafide bonafide only_speech hidden_track\n"
)
DF_2021 = (
    "LA_0023 DF_E_1 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    "TEF2 DF_E_2 low_mp3 vcc2020 Task1-team20 spoof notrim eval neural_vocoder_autoregressive Task1 team20 FF E\n"
    "LA_0030 DF_E_3 low_mp3 asvspoof - bonafide notrim eval bonafide - - - -\n"
)
ASVSPOOF_5 = (
    "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -\nD_0461 D_0000000190 M - - - - bonafide bonafide -\n"
)
IN_THE_WILD = 'file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,"Obama, Barack",bona-fide\n'


def read(folder: Path, content: str) -> TrialKeys:
    path = folder / "keys.txt"
    path.write_text(content, encoding="utf-8", newline="")
    return read_keys(path)


def groups(keys: TrialKeys) -> dict[str, list[str]]:
    return {factor.title: [factor.names[code] for code in factor.codes] for factor in keys.factors}


@pytest.mark.parametrize(
    ("content", "title", "utterances", "is_bona_fide", "factors"),
    [
        (LA_2019, "ASVspoof 2019 LA protocol", ["LA_E_1", "LA_E_2"], [False, True], {"attack": ["A11", "-"]}),
        (
            "LA_0039 LA_E_1 A11 spoof\nLA_0014 LA_E_2 - bonafide\n",
            "without its third column",
            ["LA_E_1", "LA_E_2"],
            [False, True],
            {"attack": ["A11", "-"]},
        ),
        (
            "LA_E_1 A11 spoof -8.55\nLA_E_2 - bonafide 4.1\n",
            "`utterance attack key score`",
            ["LA_E_1", "LA_E_2"],
            [False, True],
            {"attack": ["A11", "-"]},
        ),
        (
            LA_2021,
            "2021 LA",
            ["LA_E_1", "LA_E_2", "LA_E_3"],
            [False, True, True],
            {"attack": ["A07", "bonafide", "bonafide"], "codec": ["alaw", "none", "gsm"]},
        ),
        (
            DF_2021,
            "2021 DF",
            ["DF_E_1", "DF_E_2", "DF_E_3"],
            [False, False, True],
            {
                "attack": ["A14", "Task1-team20", "-"],
                "codec": ["nocodec", "low_mp3", "low_mp3"],
                "vocoder": ["traditional_vocoder", "neural_vocoder_autoregressive", "bonafide"],
            },
        ),
        (
            ASVSPOOF_5,
            "ASVspoof 5 track 1 .tsv",
            ["E_0009538969", "D_0000000190"],
            [False, True],
            {"attack": ["A26", "bonafide"], "codec": ["C05", "-"]},
        ),
        (
            "filename\tcm-label\nE_000001\tbonafide\nE_000002\tspoof\n",
            "header `filename cm-label`",
            ["E_000001", "E_000002"],
            [True, False],
            {},
        ),
        (IN_THE_WILD, "header `file speaker label`", ["0", "1"], [False, True], {}),
        (
            "Path,Label,attack\nsub/a.flac,spoof,A1\nb.flac,bonafide,-\n",
            "header `path label attack`",
            ["sub/a", "b"],
            [False, True],
            {"attack": ["A1", "-"]},
        ),
    ],
)
def test_a_key_file_is_read_as_published_and_its_format_is_named(
    content: str,
    title: str,
    utterances: list[str],
    is_bona_fide: list[bool],
    factors: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    keys = read(tmp_path, content)
    assert title in keys.format_title
    assert (list(keys.utterances), keys.is_bona_fide.tolist(), groups(keys)) == (utterances, is_bona_fide, factors)


@pytest.mark.parametrize("content", [LA_2019, LA_2021, DF_2021, ASVSPOOF_5, IN_THE_WILD])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("\n", "\r\n"), "CRLF"),
        (lambda text: "\ufeff" + text, "a byte-order mark"),
        (lambda text: "\n" + text.replace("\n", "\n\n"), "blank lines"),
        (lambda text: text.rstrip("\n"), "no end of line at the end"),
    ],
)
def test_how_a_file_was_saved_does_not_matter(content: str, change: object, reason: str, tmp_path: Path) -> None:
    assert callable(change)
    straight, changed = read(tmp_path, content), read(tmp_path, change(content))
    assert changed.utterances == straight.utterances, reason
    assert groups(changed) == groups(straight), reason


def test_the_first_trial_of_asvspoof_5_is_not_taken_for_a_header(tmp_path: Path) -> None:
    assert "E_0009538969" in read(tmp_path, ASVSPOOF_5).utterances


@pytest.mark.parametrize(
    ("content", "subset", "name", "chosen"),
    [
        (LA_2021, None, "eval", [True, False, False]),  # the official figures
        (LA_2021, "progress", "progress", [False, True, False]),
        (LA_2021, "hidden", "hidden", [False, False, True]),  # called hidden_track in the file
        (LA_2021, "all", "all", [True, True, True]),
        (LA_2019, None, "all", [True, True]),
        (LA_2019, "all", "all", [True, True]),
    ],
)
def test_the_subset_is_eval_where_the_keys_have_subsets_and_all_trials_elsewhere(
    content: str, subset: str | None, name: str, chosen: list[bool], tmp_path: Path
) -> None:
    found, mask = read(tmp_path, content).chosen(subset)
    assert (found, mask.tolist()) == (name, chosen)


@pytest.mark.parametrize(
    ("content", "subset", "words"),
    [
        (LA_2019, "eval", "--subset eval:.*2019 LA protocol.*has no subset column: leave --subset out"),
        (DF_2021, "hidden", r"--subset hidden:.*has no such trials, found eval \(2\), progress \(1\)"),
    ],
)
def test_a_subset_that_is_not_there_is_refused(content: str, subset: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, content).chosen(subset)


def test_codecs_stand_in_the_order_of_the_papers(tmp_path: Path) -> None:
    lines = [f"s u{n} {codec} - A07 spoof notrim eval" for n, codec in enumerate(("opus", "alaw", "none", "new"))]
    assert read(tmp_path, "\n".join(lines)).factors[1].names == ("none", "alaw", "opus", "new")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LA_2019 + "s LA_E_3 - A11 unknown\n", ["line 3", "`bonafide`", "found `unknown`"]),
        (LA_2019 + "s LA_E_3 A11 spoof\n", ["line 3", "5, found 4", "`s LA_E_3 A11 spoof`"]),
        (LA_2019 + "s LA_E_1 - A11 spoof\n", ["1 that come again (LA_E_1)", "lines 1 and 3"]),
        (IN_THE_WILD + "0.flac,x,spoof\n", ["1 that come again (0)", "lines 2 and 4"]),  # one name without suffix
        (IN_THE_WILD + "2.wav,x,unknown\n", ["line 4", "found `unknown`"]),
        ("LA_E_1\nLA_E_2\n", ["line 1", "found 1 columns", "4, 5, 8, 10, 13"]),
        ("a b c d e\n", ["line 1", "found 5 columns (`a b c d e`)"]),
        ("file,path\na,b\n", ["file, path: name them `path` and `label`"]),
        ("file,label\n", ["a header and no lines"]),
        ("\n \n", ["is empty"]),
    ],
)
def test_a_wrong_key_file_is_refused_with_its_place_and_what_was_found(
    content: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, content)
    for word in [*words, "keys.txt"]:
        assert word in str(refused.value)


def test_a_key_file_that_is_not_there_is_refused_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.txt.*No such file.*check --keys"):
        read_keys(tmp_path / "nowhere.txt")
