"""--eval on every layout as published: a line for each trial in the official format, and the figures of --metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from main import main
from tests.small_audio import write_sounds
from tests.test_asvspoof_2021 import make_set as make_2021

LA_2021 = (
    "LA_0009 LA_E_1 alaw ita_tx A07 spoof notrim eval\n"
    "LA_0009 LA_E_2 alaw ita_tx bonafide bonafide notrim eval\n"
    "LA_0021 LA_E_3 gsm loc_tx bonafide bonafide notrim eval\n"
    "LA_0021 LA_E_4 gsm loc_tx A08 spoof notrim eval\n"
    "LA_0021 LA_E_5 gsm loc_tx A08 spoof notrim progress\n"
    "LA_0022 LA_E_6 none - bonafide bonafide only_speech hidden_track\n"
)
DF_2021 = (
    "LA_0023 DF_E_1 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    "TEF2 DF_E_2 low_mp3 vcc2020 Task1-team20 spoof notrim eval neural_vocoder_autoregressive Task1 team20 FF E\n"
    "LA_0030 DF_E_3 low_mp3 asvspoof - bonafide notrim eval bonafide - - - -\n"
    "LA_0031 DF_E_4 nocodec asvspoof - bonafide notrim eval bonafide - - - -\n"
    "LA_0031 DF_E_5 nocodec asvspoof A14 spoof notrim eval traditional_vocoder - - - -\n"
)
ASVSPOOF_5 = (
    "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -\n"
    "E_0001 E_0000000002 F C05 2 - - bonafide bonafide -\n"
    "E_0001 E_0000000003 F - - - AC2 A17 spoof -\n"
    "E_0001 E_0000000004 F - - - - bonafide bonafide -\n"
)
IN_THE_WILD = 'file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,"Obama, Barack",bona-fide\n2.wav,Alec,bona-fide\n'
TABLE = "path,label,attack,codec\nfake/0.wav,spoof,TTS,mp3\nreal/1.flac,bonafide,-,mp3\nfake/2.wav,spoof,VC,mp3\n"
# A name with a space has its score in a table with a header, divided by tabs.
FOLDERS = ("eval/bonafide/ann/1.wav", "eval/bonafide/ann/2.wav", "eval/spoof/tts/1.flac", "eval/spoof/vc/my own.wav")


def asvspoof_2021(track: str, keys: str | None) -> Callable[[Path], Path]:
    def make(database: Path) -> Path:
        own = make_2021(database, track, keys)
        names = [f"{track}_E_{number}" for number in (3, 1, 2, 4, 5, 6)][: len((keys or LA_2021).splitlines())]
        (own / f"ASVspoof2021.{track}.cm.eval.trl.txt").write_text("".join(f"{name}\n" for name in names))
        write_sounds(own / "flac", [f"{name}.flac" for name in names])
        return database / "keys" / track / "CM" / "trial_metadata.txt"

    return make


def asvspoof_5(database: Path) -> Path:
    write_sounds(database / "flac_E_eval", [f"{line.split()[1]}.flac" for line in ASVSPOOF_5.splitlines()])
    return _written(database / "ASVspoof5.eval.track_1.tsv", ASVSPOOF_5)


def in_the_wild(database: Path) -> Path:
    write_sounds(database / "release_in_the_wild", ["0.wav", "1.wav", "2.wav"])
    return _written(database / "release_in_the_wild" / "meta.csv", IN_THE_WILD)


def table(database: Path) -> Path:
    write_sounds(database, [line.partition(",")[0] for line in TABLE.splitlines()[1:]])
    for part in ("train.csv", "dev.csv"):
        _written(database / part, TABLE)
    return _written(database / "eval.csv", TABLE)


def class_folders(database: Path) -> Path:
    write_sounds(database, FOLDERS)
    rows = [(name, *name.split("/")[1:3]) for name in FOLDERS]
    lines = [f"{name},{label},{attack if label == 'spoof' else '-'}\n" for name, label, attack in rows]
    return _written(database.parent / "keys.csv", "path,label,attack\n" + "".join(lines))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Layout:
    """A corpus, what is typed for it, and what must come out; `groups` are those of the tables, [] without figures.

    The figures are `of` so many trials, None for all.
    """

    make: Callable[[Path], Path]
    typed: tuple[str, ...]
    trials: tuple[str, ...]
    groups: tuple[str, ...] | None
    head: str = ""
    of: int | None = None


def numbered(prefix: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in numbers)


LAYOUTS = {
    "ASVspoof 2021 LA": Layout(
        asvspoof_2021("LA", LA_2021), ("--track", "LA"), numbered("LA_E_", 1, 2, 3, 4, 5, 6), ("attack", "codec"), of=4
    ),
    "ASVspoof 2021 LA, eval alone": Layout(
        asvspoof_2021("LA", LA_2021),
        ("--track", "LA", "--subset", "eval"),
        numbered("LA_E_", 1, 2, 3, 4),
        ("attack", "codec"),
    ),
    "ASVspoof 2021 LA, all of it": Layout(
        asvspoof_2021("LA", LA_2021),
        ("--track", "LA", "--subset", "all"),
        numbered("LA_E_", 1, 2, 3, 4, 5, 6),
        ("attack", "codec"),
    ),
    "ASVspoof 2021 DF": Layout(
        asvspoof_2021("DF", DF_2021), (), numbered("DF_E_", 1, 2, 3, 4, 5), ("attack", "codec", "vocoder"), of=4
    ),
    "ASVspoof 2021 LA, the list alone": Layout(
        asvspoof_2021("LA", None), ("--track", "LA"), numbered("LA_E_", 3, 1, 2, 4, 5, 6), None
    ),
    "ASVspoof 5": Layout(
        asvspoof_5,
        (),
        ("E_0009538969", "E_0000000002", "E_0000000003", "E_0000000004"),
        ("attack", "codec"),
        head="filename\tcm-score\n",
    ),
    "In-the-Wild": Layout(in_the_wild, ("--track", "In-the-Wild"), ("0", "1", "2"), ()),
    "a table": Layout(table, (), ("fake/0", "real/1", "fake/2"), ("attack", "codec")),
    "class folders": Layout(
        class_folders,
        (),
        tuple(name.rpartition(".")[0] for name in FOLDERS),
        ("attack",),
        head="filename\tcm-score\n",
    ),
}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch  # noqa: PLC0415

    from models.build import create_detector  # noqa: PLC0415
    from models.detector import DetectorSettings  # noqa: PLC0415

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("untrained") / "lcnn.pth"
    torch.save(create_detector(DetectorSettings(model_type="lcnn", ssl_model="compact")).state_dict(), path)
    return path


def fill_with_noise(folder: Path) -> None:
    """Give every file sound of its own, so that no two scores are equal."""
    for number, path in enumerate(sorted(folder.rglob("*.wav")) + sorted(folder.rglob("*.flac"))):
        noise = np.random.default_rng(number).standard_normal(4000).cumsum()
        soundfile.write(path, noise / abs(noise).max() / (number + 2), 16_000)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_set_is_scored_trial_by_trial_and_measured_as_metrics_does(
    name: str, untrained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = LAYOUTS[name]
    (workplace / "data").mkdir()
    keys = layout.make(workplace / "data")
    fill_with_noise(workplace / "data")
    command = ["--eval", "--model_type", "lcnn", "--model_path", str(untrained), "--database_path", "data"]
    assert main([*command, *layout.typed, "--eval_output", "scores.txt", "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)

    text = Path("scores.txt").read_text()
    assert text.startswith(layout.head)
    lines = [line.split("\t" if layout.head else " ") for line in text.removeprefix(layout.head).splitlines()]
    assert tuple(trial for trial, _ in lines) == layout.trials
    assert len({float(score) for _, score in lines}) == len(layout.trials)
    if layout.groups is None:
        assert evaluated == {"scores": {"path": "scores.txt"}, "part": "eval", "trained_on": None}
        return
    subset = layout.typed[-2:] if "--subset" in layout.typed else ()
    assert main(["--metrics", "scores.txt", "--keys", str(keys), *subset, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    differing = {key for key in measured if measured[key] != evaluated[key]}
    assert differing <= {"keys", "verdicts"}
    assert tuple(title for title, groups in measured["groups"].items() if groups) == layout.groups
    assert evaluated["bona_fide"] + evaluated["spoof"] == (layout.of or len(layout.trials))
