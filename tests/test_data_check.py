"""--check_data finds every fault that is planted in a corpus, and says whether training would fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from main import main
from tests.conftest import command_line, write_corpus
from tests.small_audio import write_sound, write_sounds
from utils.corpora import PROTOCOL_FILES, PROTOCOLS_FOLDER, PartName, audio_folder

REAL_CORPUS = Path(os.environ.get("BONAFIDE_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A corpus of 12 and 8 utterances, to break."""
    return write_corpus(tmp_path / "LA")


def protocol(corpus: Path, part: PartName = "train") -> Path:
    return corpus / PROTOCOLS_FOLDER / PROTOCOL_FILES[part]


def audio(corpus: Path, number: int, part: PartName = "train") -> Path:
    """The audio file of the utterance in this line, from 0, of the protocol."""
    utterance = protocol(corpus, part).read_text().splitlines()[number].split()[1]
    return audio_folder(corpus, part) / f"{utterance}.flac"


def checked(corpus: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the document of --json."""
    code = main(["--check_data", str(corpus), "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def part_of(document: dict[str, Any], name: str = "train") -> dict[str, Any]:
    found: dict[str, Any] = next(part for part in document["corpora"][0]["parts"] if part["name"] == name)
    return found


def test_a_table_that_somebody_keeps_beside_a_published_corpus_is_no_second_corpus(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "metadata.tsv").write_text("path\tlabel\tsplit\nT_1.flac\tspoof\ttrain\nD_1.flac\tspoof\tdev\n")
    code, document = checked(mine, capsys)
    assert code == 0 and len(document["corpora"]) == 1


def remove_file(corpus: Path) -> str:
    path = audio(corpus, 1)
    path.unlink()
    return path.stem


def cut_flac(corpus: Path) -> str:
    path = audio(corpus, 2)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path.name


def empty_file(corpus: Path) -> str:
    audio(corpus, 3).write_bytes(b"")
    return audio(corpus, 3).name


def double_line(corpus: Path) -> str:
    lines = protocol(corpus).read_text().splitlines()
    protocol(corpus).write_text("\n".join([*lines, lines[0]]) + "\n")
    return f"line {len(lines) + 1}: {lines[0].split()[1]}, first in line 1"


def mistype_label(corpus: Path) -> str:
    lines = protocol(corpus).read_text().splitlines()
    lines[4] = lines[4].rpartition(" ")[0] + " genuin"
    protocol(corpus).write_text("\n".join(lines) + "\n")
    return f"line 5: `genuin` ({lines[4].split()[1]})"


def shorten_line(corpus: Path) -> str:
    protocol(corpus).write_text(protocol(corpus).read_text() + "LA_T_1\n")
    return f"line {len(protocol(corpus).read_text().splitlines())}: `LA_T_1`"


Plant = Callable[[Path], str]
FAULTS: dict[str, Plant] = {
    "missing audio files": remove_file,
    "unreadable audio files": cut_flac,
    "doubled lines": double_line,
    "unknown labels": mistype_label,
    "lines that cannot be understood": shorten_line,
}


def change_rate(corpus: Path) -> str:
    path = audio(corpus, 5)
    samples, rate_hz = soundfile.read(path)
    soundfile.write(path, samples[::2], rate_hz // 2)
    return f"{path.name} ({rate_hz // 2:,} Hz)"


def test_a_good_corpus_passes(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = checked(mine, capsys)
    assert (code, document["would_run"], document["can_train"]) == (0, True, True)
    assert document["summary"] == "Nothing stands in the way of training: 12 train and 8 dev utterances."
    train = part_of(document)
    assert (train["trials"], train["bona_fide"], train["spoof"], train["files_read"]) == (12, 6, 6, 12)
    assert (train["attacks"], train["speakers"], train["sample_rates_hz"]) == ({"A01": 6}, 3, {"16000": 12})
    assert (train["faults"], train["notes"]) == ({}, {})
    assert 0.5 <= train["seconds"]["shortest"] <= train["seconds"]["median"] <= train["seconds"]["longest"] <= 5


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_with_its_place_and_fails_the_check(
    kind: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = FAULTS[kind](mine)
    code, document = checked(mine, capsys)
    assert code == 1
    (found,) = part_of(document)["faults"][kind]
    assert found.startswith(place)
    assert set(part_of(document)["faults"]) == {kind}
    assert document["summary"] == f"Training would fail: train has {kind} (1)."


@pytest.mark.parametrize("kind", FAULTS)
def test_what_fails_the_check_fails_training(kind: str, mine: Path, workplace: Path) -> None:
    FAULTS[kind](mine)
    assert (
        main(["--database_path", str(mine), "--ssl_model", "compact", "--num_workers", "0", "--num_epochs", "1"]) == 1
    )


def test_all_planted_faults_are_told_at_once(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {kind: plant(mine) for kind, plant in FAULTS.items()}
    assert main(["--check_data", str(mine)]) == 1
    said = capsys.readouterr().out
    for kind, place in wanted.items():
        assert f"  [ERROR] {kind} (1): {place}" in said
    assert said.splitlines()[-1].startswith("Training would fail: train has ")


def test_another_rate_is_noted_and_fails_nothing(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = change_rate(mine)
    code, document = checked(mine, capsys)
    assert code == 0
    assert part_of(document)["notes"] == {"audio files of another rate than 16,000 Hz": [place]}
    assert part_of(document)["sample_rates_hz"] == {"16000": 11, "8000": 1}


def test_a_file_that_several_lines_name_in_other_ways_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sounds(tmp_path, [f"{n}.wav" for n in range(4)])
    (tmp_path / "dev.csv").write_text("path,label\n0.wav,spoof\n1.wav,bonafide\n")
    (tmp_path / "train.csv").write_text(
        f"path,label\n2.wav,spoof\n3.wav,bonafide\n./2.wav,bonafide\n../{tmp_path.name}/2.wav,spoof\n"
    )
    code, document = checked(tmp_path, capsys)
    kind = "audio files that several lines name, each in another way"
    assert code == 0 and part_of(document)["notes"][kind] == ["2.wav (3 lines)"]
    assert kind not in part_of(document, "dev")["notes"]


def test_a_file_of_both_parts_is_told_also_where_they_name_it_in_two_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sounds(tmp_path, [f"{n}.wav" for n in range(4)])
    (tmp_path / "train.csv").write_text("path,label\n0.wav,spoof\n1.wav,bonafide\n")
    (tmp_path / "dev.csv").write_text("path,label\n./1.wav,spoof\n3.wav,bonafide\n")
    _, document = checked(tmp_path, capsys)
    assert document["corpora"][0]["in_train_and_dev"]["utterances"] == ["1"]


def test_a_file_that_the_protocol_does_not_name_is_counted(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sound(audio_folder(mine, "dev") / "enrolment.flac")
    code, document = checked(mine, capsys)
    assert (code, part_of(document, "dev")["not_named"], part_of(document)["not_named"]) == (0, 1, 0)


def test_files_of_the_other_part_are_not_counted_as_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bonafide", "spoof"):
        write_sounds(tmp_path / name, [f"{number}.wav" for number in range(5)])
    code, document = checked(tmp_path, capsys)
    assert (code, part_of(document)["trials"], part_of(document)["not_named"]) == (0, 8, 0)


@pytest.mark.parametrize(
    ("break_it", "kind"),
    [
        (lambda corpus: protocol(corpus, "dev").unlink(), "protocol that cannot be read"),
        (lambda corpus: protocol(corpus, "dev").write_text("\n"), "protocol that cannot be read"),
        (lambda corpus: protocol(corpus, "dev").write_bytes(b"fLaC\0\0\0\x22"), "protocol that cannot be read"),
        (
            lambda corpus: protocol(corpus, "dev").write_text("S0 LA_D_0000000 - - bonafide\n"),
            "classes without a trial",
        ),
        (lambda corpus: shutil.rmtree(audio_folder(corpus, "dev")), "audio folders that cannot be listed"),
    ],
)
def test_a_part_that_is_broken_as_a_whole_is_told_beside_the_other_one(
    break_it: Callable[[Path], object], kind: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = cut_flac(mine)
    break_it(mine)
    code, document = checked(mine, capsys)
    assert code == 1
    assert kind in part_of(document, "dev")["faults"]
    assert part_of(document)["faults"]["unreadable audio files"][0].startswith(place)


def test_a_broken_evaluation_part_is_told_and_does_not_fail_training(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol(mine, "eval").write_text("S0 LA_E_1 - A07 spoof\n")
    code, document = checked(mine, capsys)
    assert code == 0
    assert document["summary"].startswith("Nothing stands in the way of training")
    assert "Evaluation would fail: ASVspoof 2019 LA eval has " in document["summary"]


@pytest.mark.parametrize(("is_there", "code"), [(True, 0), (False, 1)])
def test_a_set_for_evaluation_is_checked_as_one(
    is_there: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sounds(tmp_path, ["0.wav", "1.wav"] if is_there else ["0.wav"])
    (tmp_path / "meta.csv").write_text("file,speaker,label\n0.wav,a,spoof\n1.wav,b,bona-fide\n")
    found, document = checked(tmp_path, capsys)
    assert (found, document["can_train"]) == (code, False)
    assert part_of(document, "eval")["published_trials"] == 31_779
    good, bad = (
        "Nothing stands in the way of evaluation: 2 In-the-Wild eval",
        "Evaluation would fail: In-the-Wild eval has",
    )
    wanted = good if is_there else bad
    assert document["summary"].startswith(wanted)


def test_counts_are_compared_with_the_published_ones_by_the_names_of_the_utterances(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--check_data", str(mine)])  # LA_T_0000000 is a name of ASVspoof 2019 LA
    assert "  published    25,380, 2,580 of them bona fide; here -25,368\n" in capsys.readouterr().out


def test_speakers_and_utterances_of_both_parts_are_noted(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, document = checked(mine, capsys)
    assert document["corpora"][0]["in_train_and_dev"] == {"utterances": [], "speakers": ["S0", "S1", "S2"]}
    main(["--check_data", str(mine)])
    assert "[NOTE] speakers in train and in dev (3), which makes the EER on dev too good: S0, S1, S2\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--check_data", "/nowhere"], 1, "--database_path /nowhere is not a corpus that is known"),
        (["--check_data"], 1, "the demo corpus is not made yet"),
        (["--check_data", "/a", "--database_path", "/b"], 2, "both name a corpus: pass one of them"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    arguments: list[str],
    code: int,
    words: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace))
    assert main(arguments) == code
    assert words in capsys.readouterr().err


def test_checking_imports_no_torch_and_writes_nothing(mine: Path, workplace: Path) -> None:
    code = "import sys, main; main.main(sys.argv[1:]); print('torch' in sys.modules)"
    typed = command_line("--check_data", mine)
    asked = subprocess.run(
        [typed[0], "-c", code, *typed[2:]],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(Path(typed[1]).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.splitlines()[-1] == "False"
    assert list(workplace.iterdir()) == [mine]


def test_ctrl_c_ends_the_check_with_one_sentence(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        write_sound(audio(mine, number), seconds=600)  # a second of work

    def interrupt_while_listening() -> None:
        while not any(thread.name.startswith("checking") for thread in threading.enumerate()):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt_while_listening)
    watcher.start()
    code = main(["--check_data", str(mine)])
    watcher.join()
    assert code == 130
    assert capsys.readouterr().err.startswith("error: --check_data was stopped by Ctrl-C in train, after 0 of its 12")


@pytest.mark.skipif(not REAL_CORPUS.is_dir(), reason=f"no real corpus in {REAL_CORPUS}; set BONAFIDE_CORPUS")
def test_every_fault_planted_in_the_real_corpus_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    for part in ("train", "dev"):
        shutil.copytree(REAL_CORPUS / f"ASVspoof2019_LA_{part}", broken / f"ASVspoof2019_LA_{part}")
    shutil.copytree(REAL_CORPUS / PROTOCOLS_FOLDER, broken / PROTOCOLS_FOLDER)
    protocol(broken, "eval").unlink()
    wanted = {kind: plant(broken) for kind, plant in FAULTS.items()}
    rate = change_rate(broken)
    code, document = checked(broken, capsys)
    train = part_of(document)
    assert code == 1
    assert {kind: len(places) for kind, places in train["faults"].items()} == dict.fromkeys(FAULTS, 1)
    for kind, place in wanted.items():
        assert train["faults"][kind][0].startswith(place)
    assert train["notes"] == {"audio files of another rate than 16,000 Hz": [rate]}
    assert part_of(document, "dev")["faults"] == {}
