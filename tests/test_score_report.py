"""--metrics as a user types it: the pooled lines, the tables by attack and codec, JSON, pictures and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from main import main
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("workplace")

# The six scores of tests/scores.py as ASVspoof 2021 LA trials, and two of another subset. By attack, against all three
# bona fide scores (-1, 1, 2):
#   A07 (-3, -2): s s B B B: at -2 no error is left: 0 %. A08 (0.5): B s B B: after B, misses 1/3 and false alarms 1,
#   then 1/3 and 0: the first whose difference is smallest has 1/3 and 0: (1/3 + 0) / 2 = 16.667 %.
# By codec: none (2, 1 against -2): 0 %; alaw (-1 against 0.5 and -3): s B s: misses 0 and false alarms 1/2: 25 %.
# gsm has spoof only, and it is in `progress`.
KEYS = """\
s a none - bonafide bonafide notrim eval
s b none - bonafide bonafide notrim eval
s c alaw - bonafide bonafide notrim eval
s d alaw - A08 spoof notrim eval
s e none - A07 spoof notrim eval
s f alaw - A07 spoof notrim eval
s g gsm - A07 spoof notrim progress
s h gsm - A08 spoof notrim progress
"""
SCORES = {"a": 2.0, "b": 1.0, "c": -1.0, "d": 0.5, "e": -2.0, "f": -3.0, "g": -4.0, "h": 7.0}


def write_files(sign: int = 1) -> list[str]:
    Path("keys.txt").write_text(KEYS)
    Path("scores.txt").write_text("".join(f"{name} {sign * score}\n" for name, score in SCORES.items()))
    return ["--metrics", "scores.txt", "--keys", "keys.txt"]


def printed(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    assert main(list(typed)) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_the_pooled_figures_are_lines_with_the_values_worked_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, *write_files()).splitlines()
    assert "EER: 33.333333 %" in lines
    assert "EER threshold: -1.000000" in lines
    assert "minDCF (ASVspoof 5): 0.333333, at -2.000000" in lines
    assert "actDCF (ASVspoof 5): 0.966667, at -0.641854, the scores read as log-likelihood ratios" in lines
    assert "min t-DCF (legacy, 2019): 0.333333" in lines  # C2 is the smaller one, and false alarms are 1/3
    assert any(line.startswith("min t-DCF (revised, 2021): 0.") for line in lines)
    assert any(line.startswith("Cllr: 0.") and " bits" in line for line in lines)


def test_what_was_read_and_used_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *write_files())
    assert "Scores: scores.txt, 8 lines, `utterance score` (ASVspoof 2021)\n" in text
    assert "Keys: keys.txt, 8 trials, ASVspoof 2021 LA trial_metadata.txt\n" in text
    assert "Subset: eval, 3 bona fide and 3 spoof; 2 scores of other subsets left out\n" in text
    assert "on ASV error rates of ASVspoof 5, the default" in text


def test_attacks_and_codecs_have_tables_with_counts(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split() for line in printed(capsys, *write_files()).splitlines()]
    attack = rows.index(["attack", "bona", "fide", "spoof", "EER", "%", "minDCF"])
    assert [row[:4] for row in rows[attack + 1 : attack + 3]] == [
        ["A07", "3", "2", "0.000"],
        ["A08", "3", "1", "16.667"],
    ]
    codec = rows.index(["codec", "bona", "fide", "spoof", "EER", "%", "minDCF"])
    assert [row[:4] for row in rows[codec + 1 :]] == [["none", "2", "1", "0.000"], ["alaw", "1", "2", "25.000"]]


def test_a_group_without_one_of_the_classes_has_no_eer_instead_of_a_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, *write_files(), "--subset", "all")
    assert ["gsm", "0", "2", "-", "-"] in [line.split() for line in text.splitlines()]
    assert text.endswith("-: not defined, the group has one class only\n")


def test_scores_with_the_sign_turned_are_told_with_what_the_eer_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *write_files(sign=-1))
    assert "EER: 66.666667 %\n" in text
    assert "the sign of the scores looks flipped" in text and "the EER would be 33.333333 %\n" in text
    assert "flipped" not in printed(capsys, *write_files())


def test_scores_that_turning_does_not_help_are_not_said_to_be_turned(capsys: pytest.CaptureFixture[str]) -> None:
    """They tell nothing: the EER is 52 %, and 48 % with the sign turned."""
    values = {"spoof": [*range(0, 48, 2), *range(101, 153, 2)], "bonafide": [*range(1, 53, 2), *range(100, 148, 2)]}
    rows = [f"{key}_{value} - {key} {value}" for key, found in values.items() for value in found]
    Path("own.txt").write_text("\n".join(rows) + "\n")
    text = printed(capsys, "--metrics", "own.txt")
    assert 50 < float(text.partition("EER: ")[2].split()[0]) < 55 and "flipped" not in text


def test_the_asv_scores_given_are_used_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The ASV of test_asv_scores; C0 = 0.0095 x 10 x 1/2 = 0.0475, C1 = 0.893, C2 = 1/3: (C0 + C2 / 3) / (C0 + C2)."""
    text = printed(capsys, *write_files(), "--asv_scores", write_asv_scores())
    assert "on ASV error rates from asv.txt, at the threshold of its EER:\n" in text
    assert "targets missed 0.000000, nontargets accepted 0.500000, spoof accepted 0.666667" in text
    assert f"min t-DCF (revised, 2021): {(0.0475 + 1 / 9) / (0.0475 + 1 / 3):.6f}\n" in text


def test_json_holds_the_same_figures_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(
        printed(capsys, *write_files(), "--subset", "all", "--json"), parse_constant=pytest.fail
    )
    assert document["scores"] == {"path": "scores.txt", "format": "`utterance score` (ASVspoof 2021)"}
    assert (document["subset"], document["bona_fide"], document["spoof"], document["left_out"]) == ("all", 3, 5, 0)
    assert document["flipped_eer_percent"] is None
    assert document["asv"]["path"] is None and 0 < document["asv"]["miss_rate"] < 1
    assert set(document) >= {"eer_percent", "eer_threshold", "min_tdcf_legacy", "min_tdcf_revised", "cllr_bits"}
    assert document["groups"]["codec"][-1] == {
        "name": "gsm",
        "num_bona_fide": 0,
        "num_spoof": 2,
        "eer_percent": None,
        "min_dcf": None,
    }


def test_plots_are_written_where_asked_and_only_then(capsys: pytest.CaptureFixture[str]) -> None:
    typed = write_files()
    printed(capsys, *typed)
    assert sorted(path.name for path in Path().iterdir()) == ["keys.txt", "scores.txt"]
    text = printed(capsys, *typed, "--plots", "new/pictures")
    pictures = sorted(Path("new/pictures").iterdir())
    assert [path.name for path in pictures] == ["det_curve.png", "score_histogram.png"]
    assert all(f"Wrote {path}\n" in text and path.read_bytes().startswith(b"\x89PNG") for path in pictures)


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_without_an_error_can_be_drawn(sign: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither curve crosses the axes."""
    Path("own.txt").write_text("".join(f"u{n} - {'bonafide' if n > 3 else 'spoof'} {sign * n}\n" for n in range(8)))
    assert "EER: " in printed(capsys, "--metrics", "own.txt", "--plots", "plots")
    assert Path("plots/det_curve.png").stat().st_size > 10_000


def test_plots_that_cannot_be_written_are_an_error_after_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*write_files(), "--plots", "keys.txt"]) == 1
    said = capsys.readouterr()
    assert "EER: " in said.out
    assert said.err.startswith("error: --plots keys.txt: the pictures cannot be written (File exists)")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a - bonafide 1\nb - bonafide 2\nc - bonafide 3\n", "3 bona fide and 0 spoof"),
        ("a - bonafide 1\nb A07 spoof nan\n", "line 2: a score is a finite number, found `nan`"),
        ("a - bonafide 1\nb A07 spoof 1_000\n", "line 2: a score is a finite number, found `1_000`"),
        ("a - bonafide 1\nb A07 spoof ١٢\n", "line 2: a score is a finite number, found `١٢`"),
    ],
)
def test_what_cannot_be_measured_exits_1_in_a_sentence_without_a_figure(
    content: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.txt").write_text(content)
    assert main(["--metrics", "own.txt"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and words in said.err


def test_neither_torch_nor_matplotlib_is_imported_for_figures_without_pictures() -> None:
    code = (
        "import sys; from main import main; main(sys.argv[1:]); "
        "print([name for name in ('torch', 'matplotlib', 'sklearn', 'scipy') if name in sys.modules])"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, *write_files()],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.endswith("\n[]\n")


def test_the_tables_of_asvspoof_2021_df_go_by_vocoder_too(capsys: pytest.CaptureFixture[str]) -> None:
    vocoders = ("traditional_vocoder", "neural_vocoder_autoregressive")
    generator = np.random.default_rng(1)
    with Path("keys.txt").open("w") as keys, Path("scores.txt").open("w") as scores:
        for n in range(90):
            truth = "A14 spoof notrim eval " + vocoders[n % 2] if n % 3 else "bonafide bonafide notrim eval bonafide"
            keys.write(f"s DF_E_{n} {('nocodec', 'low_mp3')[n % 2]} asvspoof {truth} - - - -\n")
            scores.write(f"DF_E_{n} {generator.normal(0 if n % 3 else 2):.4f}\n")
    rows = [line.split()[:3] for line in printed(capsys, "--metrics", "scores.txt", "--keys", "keys.txt").splitlines()]
    assert ["traditional_vocoder", "30", "30"] in rows and ["neural_vocoder_autoregressive", "30", "30"] in rows
    assert ["nocodec", "15", "30"] in rows and ["low_mp3", "15", "30"] in rows
    assert ["A14", "30", "60"] in rows


TRACK_1 = "S E_{n} M - - - {attack} {attack} {key} -\n"
OF_DF = "s E_{n} nocodec asvspoof {attack} {key} notrim eval x - - - -\n"


@pytest.mark.parametrize(
    ("keys", "scores", "words"),
    [
        ("", "1 1 0 1 0 0", "since it needs scores, found fewer than 3 different values: these are decisions"),
        ("", "7 7 7 7 7 7", "since it needs scores, found fewer than 3 different values: these are decisions"),
        (TRACK_1, "3 2 1 0 -1 -2", "track 1 of ASVspoof 5 is measured without an ASV system (--asv_scores FILE takes"),
        (OF_DF, "3 2 1 0 -1 -2", "ASVspoof 2021 DF is measured without an ASV system (--asv_scores FILE takes"),
        ("E_{n} {key}\n", "3 2 1 0 -1 -2", "track 1 of ASVspoof 5 is measured without an ASV system"),
    ],
    ids=["decisions", "constant", "track 1", "DF", "keys of the package of ASVspoof 5"],
)
def test_every_figure_that_exists_is_given_and_one_line_says_why_there_is_no_t_dcf(
    keys: str, scores: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = [("A07", "spoof") if n in (2, 4, 5) else ("-", "bonafide") for n in range(6)]
    head = "filename\tcm-label\n" if keys.startswith("E_") else ""
    lines = [keys.format(n=n, attack=attack, key=key) for n, (attack, key) in enumerate(truth)]
    Path("keys.txt").write_text(head + "".join(lines).replace(" ", "\t" if head else " "))
    rows = [
        f"E_{n} {score}" if keys else f"E_{n} {attack} {key} {score}"
        for n, ((attack, key), score) in enumerate(zip(truth, scores.split(), strict=True))
    ]
    Path("scores.txt").write_text("\n".join(rows) + "\n")
    typed = ["--metrics", "scores.txt", *(["--keys", "keys.txt"] if keys else [])]
    said = printed(capsys, *typed).splitlines()
    for figure in ("EER: ", "minDCF (ASVspoof 5): ", "actDCF (ASVspoof 5): ", "Cllr: ", "minCllr: "):
        assert sum(line.startswith(figure) for line in said) == 1, figure
    (line,) = [line for line in said if "t-DCF" in line]
    assert line.startswith(f"min t-DCF: none, {words}")
    document = json.loads(printed(capsys, *typed, "--json"), parse_constant=pytest.fail)
    assert document["min_tdcf_legacy"] is document["min_tdcf_revised"] is None
    assert document["why_no_tdcf"].startswith(words) and document["min_cllr_bits"] <= document["cllr_bits"]


def test_asv_scores_that_are_given_give_a_df_set_its_t_dcf(capsys: pytest.CaptureFixture[str]) -> None:
    """The same figures as the same scores of LA have."""
    of_la = printed(capsys, *write_files(), "--asv_scores", write_asv_scores())
    rows = [line.split() for line in KEYS.splitlines()]
    Path("keys.txt").write_text("".join(f"{' '.join([*row, 'x', '-', '-', '-', '-'])}\n" for row in rows))
    of_df = printed(capsys, "--metrics", "scores.txt", "--keys", "keys.txt", "--asv_scores", "asv.txt")
    assert [line for line in of_df.splitlines() if "t-DCF" in line] == [
        line for line in of_la.splitlines() if "t-DCF" in line
    ]
    assert "min t-DCF (revised, 2021): " in of_df


def write_asv_scores() -> str:
    keys = ["target"] * 4 + ["nontarget"] * 2 + ["spoof"] * 3
    scores = [1, 2, 3, 4, 0, 1.5, 0.5, 1, 3]
    Path("asv.txt").write_text("".join(f"x {key} {score}\n" for key, score in zip(keys, scores, strict=True)))
    return "asv.txt"
