"""--score tells of own audio files what --eval would, of long ones window by window, and of bad ones what is wrong."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile

from main import main
from tests.conftest import SMALL_RUN, trained_run, write_corpus
from tests.small_audio import babble
from training.checkpoints.sealed_file import read_record
from training.evaluation.file_scores import FileScore, _Reading
from training.evaluation.judge import Judge
from training.evaluation.score_table import ScoreTable, summary_text
from utils.audio.checking import AudioFault
from utils.audio.waveforms import CROP_SAMPLES
from utils.audio.windows import WindowedAudio
from utils.scores.score_files import read_scores
from utils.scores.verdicts import VerdictRule


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), train=8, dev=24)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The folder of a small run of two epochs."""
    return trained_run(tmp_path_factory.mktemp("trained"), corpus, num_epochs=2)


def noise(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(7).uniform(-0.5, 0.5, (round(seconds * rate_hz), channels))


def scored(capsys: pytest.CaptureFixture[str], trained: Path, *typed: str | Path, code: int = 0) -> dict[str, Any]:
    """Return the JSON document of a scoring."""
    capsys.readouterr()
    assert main(["--score", *map(str, typed), "--model_path", str(trained), "--json"]) == code
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_files_of_a_window_or_less_get_the_score_that_eval_gives_them(
    trained: Path, corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = corpus / "ASVspoof2019_LA_dev" / "flac"
    soundfile.write("exact.wav", noise(CROP_SAMPLES / 16_000), 16_000)
    shutil.copy("exact.wav", audio / "exact.wav")
    names = [path.stem for path in sorted(audio.iterdir())]
    Path("trials.txt").write_text("\n".join(names) + "\n")
    asked = ["--model_path", str(trained), "--database_path", str(corpus), "--protocols_path", "trials.txt"]
    assert main(["--eval", *asked, "--eval_output", "eval.txt", "--batch_size", "1"]) == 0
    of_eval = dict(zip(names, read_scores(Path("eval.txt")).scores, strict=True))
    one_by_one = scored(capsys, trained, audio, "--batch_size", "1")["files"]
    for one in one_by_one:
        name = Path(one["path"]).stem
        seen_by_eval = one["windows"][0]["score"] if one["num_windows"] > 1 else one["score"]
        assert np.float32(seen_by_eval) == np.float32(of_eval.pop(name))
    assert not of_eval
    files = scored(capsys, trained, audio)["files"]
    assert {one["num_windows"] for one in files} == {1, 2}
    assert [one["score"] for one in files] == pytest.approx([one["score"] for one in one_by_one], abs=1e-4)
    (audio / "exact.wav").unlink()


def test_a_long_file_is_scored_in_windows_of_which_the_last_one_ends_with_it(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = noise(10.0)
    soundfile.write("long.wav", sound, 16_000, subtype="FLOAT")
    starts = [0, CROP_SAMPLES, 160_000 - CROP_SAMPLES]
    for number, start in enumerate(starts):
        soundfile.write(f"part_{number}.wav", sound[start : start + CROP_SAMPLES], 16_000, subtype="FLOAT")
    long, *parts = scored(capsys, trained, "long.wav", "part_0.wav", "part_1.wav", "part_2.wav")["files"]
    assert [window["start_s"] for window in long["windows"]] == [start / 16_000 for start in starts]
    expected = [part["score"] for part in parts]
    assert [window["score"] for window in long["windows"]] == pytest.approx(expected, abs=1e-5)
    assert long["score"] == pytest.approx(sum(expected) / 3, abs=1e-5) and long["seconds"] == 10


def test_the_table_has_a_row_for_each_file_in_order_and_decides_at_the_stored_threshold(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("b/x.wav", "b/c/a.flac", "b/.hidden.wav", "b/note.txt", "b/d.m4a", "z.ogg", "b/a.mp3"):
        path = Path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".txt", ".m4a"):
            path.write_text("no audio")
        else:
            soundfile.write(path, babble(0.5, 44_100, channels=2), 44_100)
    typed = ["z.ogg", "b", "./z.ogg", "b/../b/x.wav"]
    document = scored(capsys, trained, *typed)
    assert [one["path"] for one in document["files"]] == ["z.ogg", "b/a.mp3", "b/c/a.flac", "b/x.wav"]
    record = read_record(trained / "checkpoint_epoch_2.pth")
    assert record is not None
    decision = record["decision"]
    assert document["threshold"] == decision["threshold"] and document["complete"]
    assert document["validation_miss_rate"] == decision["miss_rate"]
    assert document["passed_over"] == ["b/d.m4a"]
    assert main(["--score", *typed, "--model_path", str(trained)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[1].startswith(
        f"Threshold: bona fide above {decision['threshold']:.6f}, where the calibrated log-likelihood ratio exceeds 0 "
        "(--prior 0.5); from validation after step 4, stored in "
    )
    assert lines[2].startswith("  on the validation that gave it: ") and " % of bona fide missed, " in lines[2]
    assert any(
        line.startswith("Passed over: 1 file of formats that cannot be read here (d.m4a): .m4a is") for line in lines
    )
    rows = lines[lines.index("file            score  verdict     seconds") + 1 :]
    for row, one in zip(rows[:4], document["files"], strict=True):
        told = "bona fide" if one["score"] > decision["threshold"] else "spoof"
        assert one["verdict"] == told
        assert row == f"{one['path']:<10}  {one['score']:>9.4f}  {told:<9}  {'0.50':>8}"
        assert one["log_likelihood_ratio"] == pytest.approx(decision["scale"] * one["score"] + decision["offset"])
    assert rows[5].startswith("4 files, 2.00 s of audio: ")
    assert said.err == ""


def test_a_row_says_how_many_windows_of_a_file_mean_something_else() -> None:
    table = ScoreTable([Path("a.wav")], Judge(VerdictRule(2.0, -2.0)))  # turns at 1
    windows = ((0.0, 3.0), (4.0, 0.5), (5.0, 2.5))
    row = table.row(FileScore(Path("a.wav"), 9.0375, windows))
    assert row == "a.wav     2.0000  bona fide      9.04  1 of 3 windows spoof"
    row = ScoreTable([Path("a.wav")], Judge(VerdictRule(1.0, -2.0))).row(FileScore(Path("a.wav"), 9.0375, windows))
    assert row.endswith("spoof          9.04  2 of 3 windows bona fide")
    assert ScoreTable([Path("a.wav")], Judge()).row(FileScore(Path("a.wav"), 9.0375, windows)).endswith("9.04")


def test_what_cannot_be_read_is_told_in_its_row_and_the_others_are_scored(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write("good.wav", babble(0.5), 16_000)
    soundfile.write("8_bit.wav", babble(0.5, 8_000), 8_000, subtype="PCM_U8")
    soundfile.write("silent.wav", np.zeros(8_000), 16_000)
    soundfile.write("nan.wav", np.append(noise(5.0)[:, 0], np.nan), 16_000, subtype="FLOAT")
    soundfile.write("no_samples.wav", np.zeros(0), 16_000)
    soundfile.write("odd_rate.wav", noise(0.1), 2**31 - 1)
    soundfile.write("cut.flac", noise(5.0), 16_000)
    Path("cut.flac").write_bytes(Path("cut.flac").read_bytes()[:60_000])
    Path("short.wav").write_bytes(Path("good.wav").read_bytes()[:8_000])
    Path("text.wav").write_text("no audio")
    Path("empty.wav").write_bytes(b"")
    Path("samples.raw").write_bytes(b"1234")
    Path("folder").mkdir()
    os.mkfifo("pipe.wav")
    names = sorted(path.name for path in workplace.iterdir())
    assert main(["--score", *names, "missing.wav", "--model_path", str(trained)]) == 1
    lines = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("file  "))
    rows = lines[head + 1 : -2]
    told = {row.split()[0]: row for row in rows}
    assert list(told) == [*names, "missing.wav"]
    for name, words in {
        "nan.wav": "sample 80,000 is nan",
        "no_samples.wav": "it holds no samples",
        "odd_rate.wav": "a sample rate of 2,147,483,647 Hz is none of audio",
        "cut.flac": "flac decoder lost sync",
        "text.wav": "Format not recognised",
        "empty.wav": "it is empty",
        "samples.raw": "raw samples do not say their rate and channels",
        "folder": "it is a folder, not a file",
        "pipe.wav": "it is a named pipe, not a file",
        "missing.wav": "there is no such file",
    }.items():
        assert told[name].split()[1:4] == ["-"] * 3 and words in told[name], told[name]
    for name, words in {
        "silent.wav": "silence: every sample is 0",
        "short.wav": "cut short: ",
        "8_bit.wav": "",
    }.items():
        assert float(told[name].split()[1]) == pytest.approx(0, abs=100) and words in told[name]


def test_without_any_audio_one_sentence_says_so_before_a_detector_is_looked_for(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    assert main(["--score", "folder"]) == 1
    assert "--score found no audio file: folder holds no file; WAV, FLAC" in capsys.readouterr().err
    Path("folder/speech.m4a").write_bytes(b"x")
    assert main(["--score", "folder"]) == 1
    assert "folder holds 1 other files (speech.m4a)" in capsys.readouterr().err
    assert main(["--score", "a.wav", "b.wav"]) == 1
    assert "--score a.wav: there is no such file or folder, nor" in capsys.readouterr().err


def test_detectors_without_a_threshold_of_their_own_give_scores_and_no_verdict(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    soundfile.write("a.wav", babble(0.5), 16_000)
    last = trained / "checkpoint_epoch_2.pth"
    torch.save(torch.load(last, weights_only=True)["model_state_dict"], "bare.pt")
    bare = scored(capsys, Path("bare.pt"), "a.wav", *SMALL_RUN)
    assert (bare["threshold"], bare["files"][0]["verdict"], bare["files"][0]["log_likelihood_ratio"]) == (None,) * 3
    assert bare["files"][0]["score"] == scored(capsys, last, "a.wav")["files"][0]["score"]
    assert main(["--score", "a.wav", "--model_path", "bare.pt", *SMALL_RUN]) == 0
    said = capsys.readouterr().out
    assert "Threshold: none, and so no verdict: bare.pt holds weights alone, and no calibration" in said
    (row,) = (line.split() for line in said.splitlines() if line.startswith("a.wav"))
    assert row[2] == "-" and said.splitlines()[-1].endswith(": 1 scored")
    record = read_record(last)
    assert record is not None
    assert main(["--export", "safetensors", "--model_path", str(last), "--export_path", "exported.safetensors"]) == 0
    exported = scored(capsys, Path("exported.safetensors"), "a.wav", *SMALL_RUN)
    assert exported["threshold"] == record["decision"]["threshold"]
    assert exported["files"][0]["score"] == bare["files"][0]["score"]
    assert exported["files"][0]["verdict"] == scored(capsys, last, "a.wav")["files"][0]["verdict"] != None  # noqa: E711
    facts = {"program": "bonafide", "step": "4", "threshold": "0.25"}  # as an earlier version wrote it
    save_file(torch.load("bare.pt", weights_only=True), "early.safetensors", metadata=facts)
    early = scored(capsys, Path("early.safetensors"), "a.wav", *SMALL_RUN)
    assert (
        early["threshold"] is None
        and "exported by an earlier version, with the threshold of the EER" in (early["files"][0]["no_verdict"])
    )
    mean = scored(capsys, trained, "a.wav", "--average_checkpoints", "2")
    assert len(mean["sources"]) == 2 and mean["threshold"] is None
    assert "never validated" in mean["threshold_from"]


def test_best_and_bfloat16_are_as_with_eval(trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("a.wav", babble(0.5), 16_000)
    best = scored(capsys, trained, "a.wav", "--load_checkpoint_type", "best")
    assert best["sources"][0].startswith(str(trained / "best"))
    precise, rough = (scored(capsys, trained, "a.wav", "--precision", p)["files"][0]["score"] for p in ("fp32", "bf16"))
    assert rough != precise and rough == pytest.approx(precise, abs=0.5)
    assert main(["--score", "a.wav", "--model_path", str(trained), "--group_size", "5"]) == 1
    assert "--group_size 5 contradicts" in capsys.readouterr().err


def test_scores_are_fp32_unless_another_precision_is_typed_whatever_training_used(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even the run's own config.yaml brings bfloat16 back."""
    soundfile.write("a.wav", babble(0.5), 16_000)
    given = ["--database_path", str(corpus), "--num_epochs", "1", "--precision", "bf16"]
    assert main([*SMALL_RUN, *given]) == 0
    (folder,) = (Path.cwd() / "models").iterdir()
    unasked = scored(capsys, folder, "a.wav")
    configured = scored(capsys, folder, "a.wav", "--config", str(folder / "config.yaml"))
    fp32, bf16 = (scored(capsys, folder, "a.wav", "--precision", precision) for precision in ("fp32", "bf16"))
    assert unasked == configured == fp32
    assert (fp32["precision"], bf16["precision"]) == ("fp32", "bf16")
    assert bf16["files"][0]["score"] != fp32["files"][0]["score"]
    head = "Precision: fp32, where training used bf16 (--precision bf16 scores in that, too)\n"
    assert main(["--score", "a.wav", "--model_path", str(folder)]) == 0
    assert head in capsys.readouterr().out
    names = sorted(path.stem for path in (corpus / "ASVspoof2019_LA_dev" / "flac").iterdir())
    Path("trials.txt").write_text("\n".join(names) + "\n")
    trials = ["--database_path", str(corpus), "--protocols_path", "trials.txt", "--eval_output", "a.txt"]
    assert main(["--eval", "--model_path", str(folder), *trials]) == 0
    assert head in capsys.readouterr().out
    assert "precision=fp32" in Path("a.txt.origin.json").read_text()
    assert main(["--score", "a.wav", "--model_path", str(folder), "--precision", "bf16"]) == 0
    assert "Precision: bf16\n" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_ends_at_once_with_what_is_scored_so_far(
    as_json: bool, trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write("long.wav", np.zeros(16_000 * 3600), 16_000)
    soundfile.write("first.wav", babble(0.5), 16_000)
    ctrl_c = threading.Thread(target=_interrupt_once_open_for_a_while, args=("long.wav",))
    ctrl_c.start()
    typed = ["--score", "first.wav", "long.wav", "--model_path", str(trained), "--batch_size", "1"]
    assert main([*typed, "--json"] if as_json else typed) == 130
    ctrl_c.join()
    said = capsys.readouterr().out
    if as_json:
        document = json.loads(said)
        assert [one["path"] for one in document["files"]] == ["first.wav"] and not document["complete"]
    else:
        assert len([line for line in said.splitlines() if line.startswith("first.wav  ")]) == 1
        assert said.splitlines()[-1].startswith("Stopped, 1 of 2 files left; 1 file, 0.50 s of audio: ")


def _interrupt_once_open_for_a_while(name: str) -> None:
    """Send this process SIGINT while it has a file open that is being scored, not asked for its length."""
    seen, began = 0, time.monotonic()
    while seen < 20 and time.monotonic() - began < 60:
        opened = []
        for link in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                opened.append(link.readlink().name)
        seen = seen + 1 if name in opened else 0
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def test_silence_and_too_little_speech_have_a_score_no_verdict_and_a_reason(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write("silent.wav", np.zeros(32_000), 16_000)
    soundfile.write("hiss.wav", 2e-4 * noise(2.0), 16_000, subtype="FLOAT")
    soundfile.write("click.wav", noise(0.05), 16_000)
    soundfile.write("noise.wav", noise(3.0), 16_000)
    soundfile.write("word.wav", babble(0.5), 16_000)
    names = ["silent.wav", "hiss.wav", "click.wav", "noise.wav", "word.wav"]
    files = {one["path"]: one for one in scored(capsys, trained, *names)["files"]}
    for name, why in {
        "silent.wav": "silence: every sample is 0",
        "hiss.wav": "too little speech: 0.00 s of it, and a verdict needs 0.5 s",
        "click.wav": "too little speech: 0.00 s of it, and a verdict needs 0.5 s",
        "noise.wav": "too little speech: 0.00 s of it, and a verdict needs 0.5 s",
        "word.wav": None,
    }.items():
        one = files[name]
        assert one["no_verdict"] == why and (one["verdict"] is None) == bool(why)
        assert (one["log_likelihood_ratio"] is None) == bool(why) and isinstance(one["score"], float)
    assert main(["--score", *names, "--model_path", str(trained)]) == 0
    said = capsys.readouterr().out.splitlines()
    (row,) = (line for line in said if line.startswith("click.wav"))
    assert row.split()[2] == "-"
    assert row.endswith("  no verdict: too little speech: 0.00 s of it, and a verdict needs 0.5 s")
    assert said[-1].endswith(", 4 without a verdict")


def test_the_last_line_counts_verdicts_and_files_without_one() -> None:
    files = [
        FileScore(Path("a"), 2.0, ((0.0, 3.0),)),
        FileScore(Path("b"), 2.0, ((0.0, 0.5),)),
        FileScore(Path("c"), 1.0, ((0.0, 9.0),), too_little="silence"),
        FileScore(Path("d"), fault="it is empty"),
    ]
    said = summary_text(files, 4, Judge(VerdictRule(1.0, -1.0)))
    assert said == "4 files, 5.00 s of audio: 1 bona fide, 1 spoof, 1 without a verdict, 1 not scored"
    assert summary_text(files, 4, Judge(why_not="x")) == "4 files, 5.00 s of audio: 3 scored, 1 not scored"


def test_the_prior_moves_the_verdict_and_is_refused_outside_0_and_1(
    trained: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write("a.wav", babble(0.5), 16_000)
    told = {}
    for prior in ("1e-9", "0.5", "0.999999999"):
        document = scored(capsys, trained, "a.wav", "--prior", prior)
        (one,) = document["files"]
        assert document["bona_fide_prior"] == float(prior)
        assert (one["verdict"] == "bona fide") == (one["score"] > document["threshold"])
        assert (one["verdict"] == "bona fide") == (one["log_likelihood_ratio"] > document["log_likelihood_ratio_above"])
        assert document["validation_miss_rate"] is not None
        told[prior] = (one["verdict"], one["log_likelihood_ratio"])
    assert (told["1e-9"][0], told["0.999999999"][0]) == ("spoof", "bona fide")
    assert len({ratio for _, ratio in told.values()}) == 1
    for wrong in ("0", "1", "-0.5", "nan"):
        assert main(["--score", "a.wav", "--model_path", str(trained), f"--prior={wrong}"]) == 2
        assert "--prior is the probability of bona fide" in capsys.readouterr().err
    assert main(["--metrics", "scores.txt", "--prior", "0.5"]) == 2
    assert "--prior goes with --eval or --score" in capsys.readouterr().err


def test_a_score_that_is_not_finite_is_laid_to_the_level_where_that_explains_it() -> None:
    loud = SimpleNamespace(path=Path("a.wav"), doubt=(AudioFault.LOUD, "a peak of 1,000 where full scale is 1"))
    sound = SimpleNamespace(path=Path("a.wav"), doubt=None)
    faults = [_Reading(cast("WindowedAudio", one), [(0.0, math.nan)]).result().fault for one in (loud, sound)]
    assert faults == [
        "its score is nan: a peak of 1,000 where full scale is 1: divide the samples by it",
        "its score is nan: the weights are not sound, or --precision fp32 is needed",
    ]
