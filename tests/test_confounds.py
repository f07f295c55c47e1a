"""What gives a corpus's labels away beside speech is noted with its figure, and small corpora are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from main import main
from training.data.confounds import Confound, by_name, by_value


def write(folder: Path, number: int, *, rate_hz: int = 16_000, seconds: float = 1.0, level: float = 0.1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(number).normal(0, level, round(seconds * rate_hz)).clip(-1, 1)
    soundfile.write(folder / f"{folder.name}_{number}.wav", sound, rate_hz)


def notes_of_train(corpus: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    """Return the names of the confounds of the training part, and the report as text."""
    assert main(["--check_data", str(corpus), "--json"]) == 0
    (train,) = (part for part in json.loads(capsys.readouterr().out)["corpora"][0]["parts"] if part["name"] == "train")
    assert main(["--check_data", str(corpus)]) == 0
    return [confound["of"] for confound in train["confounds"]], capsys.readouterr().out


@pytest.mark.parametrize(
    ("of_spoof", "found", "words"),
    [
        ({}, [], ""),
        (
            {"rate_hz": 24_000},
            ["sample rate"],
            "guessing bona fide for 16,000 Hz, and spoof for 24,000 Hz, is right for",
        ),
        (
            {"level": 0.03},
            ["level (RMS)", "peak"],
            "[NOTE] the level (RMS) tells the label: guessing bona fide above -",
        ),
        (
            {"seconds": 1.5},
            ["length"],
            "[NOTE] the length tells the label: guessing bona fide up to 1 s, and spoof else",
        ),
    ],
)
def test_a_class_that_was_made_in_another_way_is_noted(
    of_spoof: dict[str, float], found: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(40):
        write(tmp_path / "bonafide", number)
        write(tmp_path / "spoof", 100 + number, **of_spoof)  # type: ignore[arg-type]
    names, report = notes_of_train(tmp_path, capsys)
    assert names == found
    assert words in report
    assert ("right for 100 % (mean of both classes)" in report) is bool(found)


def test_another_container_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(40):
        write(tmp_path / "bonafide", number)
        write(tmp_path / "spoof", 100 + number)
        path = tmp_path / "spoof" / f"spoof_{100 + number}.wav"
        sound, rate_hz = soundfile.read(path)
        soundfile.write(path.with_suffix(".flac"), sound, rate_hz)
        path.unlink()
    names, report = notes_of_train(tmp_path, capsys)
    assert names == ["file format"]
    assert "guessing bona fide for WAV PCM_16, mono, and spoof for FLAC PCM_16, mono, is right for 100 %" in report


@pytest.mark.parametrize(
    ("bona_fide", "spoof", "right_percent", "why"),
    [
        (["a"] * 15 + ["b"] * 5, ["a"] * 2 + ["b"] * 18, None, "right for 82.5 %, which 20 of each give too easily"),
        (["a"] * 300 + ["b"] * 100, ["a"] * 50 + ["b"] * 350, 81.25, "about the same of 400 of each"),
        (["a"] * 600 + ["b"] * 400, ["a"] * 400 + ["b"] * 600, None, "right for 60 % is not worth a note"),
        (["a"] * 10, ["b"] * 10, None, "10 of each give that by chance too often"),
        (["a"] * 30, ["a"] * 30, None, "no difference at all"),
    ],
)
def test_what_is_worth_a_note(bona_fide: list[str], spoof: list[str], right_percent: float | None, why: str) -> None:
    found = by_name("format", bona_fide, spoof)
    assert (found.right_percent if found else None) == right_percent, why


def test_a_threshold_is_told_with_its_side() -> None:
    values = [float(value) for value in range(100)]
    assert by_value("length", values, [value + 90 for value in values], "s") == Confound(
        "length", 95.0, "guessing bona fide up to 89 s, and spoof else"
    )


@pytest.mark.parametrize("size", [4, 12, 30, 100, 1_000])
def test_what_has_nothing_to_do_with_the_labels_is_not_noted(size: int) -> None:
    """Five hundred corpora of each size, with two and with six formats, and classes as uneven as 1 to 9."""
    draw = np.random.default_rng(size)
    for number in range(500):
        bona_fide, spoof = (size // 2, size // 2) if number % 2 else (max(1, size // 10), size - max(1, size // 10))
        kinds = 2 if number % 4 < 2 else 6
        assert by_value("level", draw.normal(size=bona_fide).tolist(), draw.normal(size=spoof).tolist(), "dB") is None
        assert (
            by_name("rate", draw.integers(kinds, size=bona_fide).tolist(), draw.integers(kinds, size=spoof).tolist())
            is None
        )
