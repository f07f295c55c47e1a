"""Whole runs in this process: what a plan does to the run folder, and that nothing is lost on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from tests.conftest import SMALL_RUN, write_corpus
from training.inference import load_detector
from training.loop.step import take_step
from training.tasks import heatmaps


@pytest.fixture(autouse=True)
def in_the_workplace(workplace: Path) -> None:
    """Run in an empty folder."""


def train(corpus: Path, *arguments: str, epochs: int = 1) -> int:
    return main([*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", str(epochs), *arguments])


def the_run() -> Path:
    (folder,) = Path("models").iterdir()
    return folder


def test_a_fresh_start_moves_the_earlier_run_aside_with_its_logs_and_says_how_to_resume_it(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus) == 0
    weights = (the_run() / "checkpoint_epoch_1.pth").read_bytes()
    assert train(corpus, "--fresh_start") == 0
    moved = the_run() / "version_1"
    assert (moved / "checkpoint_epoch_1.pth").read_bytes() == weights
    assert (moved / "training_log.csv").exists()
    assert len(list((Path("logs") / the_run().name / "version_1").iterdir())) == 1
    assert f"--resume --model_path {moved}/checkpoint_epoch_1.pth" in capsys.readouterr().out
    assert main(["--resume", "--model_path", str(moved / "checkpoint_epoch_1.pth"), "--num_epochs", "1"]) == 0


def test_logs_whose_checkpoints_are_gone_are_moved_aside_and_not_deleted(corpus: Path) -> None:
    assert train(corpus) == 0
    (events,) = (Path("logs") / the_run().name).iterdir()
    content = events.read_bytes()
    the_run().rename("elsewhere")
    assert train(corpus) == 0
    assert (events.parent / "version_1" / events.name).read_bytes() == content


def test_auto_resume_goes_on_from_the_newest_undamaged_checkpoint_and_names_the_damaged_one(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus, epochs=2) == 0
    second = the_run() / "checkpoint_epoch_2.pth"
    state = torch.load(second, weights_only=True)["model_state_dict"]
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    second.write_bytes(damaged)
    capsys.readouterr()
    assert train(corpus, "--auto_resume", epochs=2) == 0
    said = capsys.readouterr().out
    assert f"passed over {second}: its checksum does not match" in said
    assert "resume models" in said and "checkpoint_epoch_1.pth at epoch 2" in said
    again = torch.load(second, weights_only=True)["model_state_dict"]
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_weights_of_another_run_start_a_new_one_at_epoch_1_with_a_new_optimizer(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus, "--comment", "first") == 0
    best = the_run() / "best_model_eer_first.pth"
    assert train(corpus, "--fresh_start", "--model_path", str(best), "--comment", "second", "--group_size", "2") == 0
    assert "was trained with --group_size 3, this run has 2" in capsys.readouterr().out
    (second,) = Path("models").glob("*_second")
    payload = torch.load(second / "checkpoint_epoch_1_second.pth", weights_only=True)
    steps = {int(moments["step"]) for moments in payload["optimizer_state_dict"]["state"].values()}
    assert (payload["epoch"], steps) == (1, {3})


def test_weights_of_another_front_end_are_refused_and_never_taken_for_the_one_asked_for(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus) == 0
    best = the_run() / "best_model_eer.pth"
    code = main(["--database_path", str(corpus), "--model_path", str(best), "--ssl_model", str(tmp_path / "gone")])
    assert code == 1
    assert "--ssl_model" in capsys.readouterr().err


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw two small figures, those of the utterances."""
    monkeypatch.setattr(heatmaps, "_CLASS_FIGURES", {})
    monkeypatch.setattr(heatmaps, "DOTS_PER_INCH", 40)


@pytest.mark.usefixtures("quick_figures")
def test_heatmaps_of_any_checkpoint_are_drawn_beside_it(corpus: Path) -> None:
    assert train(corpus, epochs=2) == 0
    first = the_run() / "checkpoint_epoch_1.pth"
    flags = ["--resume", "--model_path", str(first), "--num_epochs", "1", "--visualize_attention", "--viz_samples", "2"]
    before = {path.name for path in the_run().iterdir()}
    assert main(flags) == 0
    assert {path.name for path in the_run().iterdir()} - before == {"attention_epoch_1"}
    assert len(list((the_run() / "attention_epoch_1").glob("*.png"))) == 2


@pytest.mark.usefixtures("quick_figures")
def test_heatmaps_of_the_end_that_a_kill_prevented_are_drawn_by_the_next_start(corpus: Path) -> None:
    drawing = ("--visualize_attention", "--viz_samples", "2")
    assert train(corpus, *drawing) == 0
    shutil.rmtree(the_run() / "final_attention_analysis")
    assert train(corpus, "--auto_resume", *drawing) == 0
    assert len(list((the_run() / "final_attention_analysis").glob("*.png"))) == 2


@pytest.mark.usefixtures("quick_figures")
@pytest.mark.parametrize(("epochs", "due"), [(1, "final_attention_analysis"), (2, "attention_epoch_1")])
def test_a_stop_while_heatmaps_are_drawn_leaves_them_to_the_next_start(
    epochs: int, due: str, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = ("--visualize_attention", "--viz_samples", "2", *(("--viz_frequency", "1") if epochs == 2 else ()))
    original = heatmaps.draw_part

    def stopped(*arguments: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(heatmaps, "draw_part", stopped)
        assert train(corpus, *drawing, epochs=epochs) == 143
    assert "pictures of this epoch were drawn: the same command with --auto_resume" in capsys.readouterr().out
    assert not (the_run() / due).exists()
    assert train(corpus, "--auto_resume", *drawing, epochs=epochs) == 0
    assert len(list((the_run() / due).glob("*.png"))) == 2


def test_a_trained_detector_loads_for_inference_with_its_settings_and_figures(corpus: Path) -> None:
    assert train(corpus) == 0
    trained = load_detector(the_run() / "best_model_eer.pth")
    assert not trained.detector.training
    assert trained.options.group_size == 3
    record = torch.load(the_run() / "checkpoint_epoch_1.pth", weights_only=True)
    assert trained.metrics is not None and trained.metrics.val_eer == record["val_eer"]
    with torch.inference_mode():
        scores = trained.detector(torch.zeros(2, 64_600))
    assert scores.shape == (2, 2)


def test_a_run_that_diverges_says_at_which_step_and_saves_nothing_over(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus) == 0
    saved = {path.name: path.read_bytes() for path in the_run().glob("*.pth")}
    assert main(["--resume", "--model_path", str(the_run()), "--num_epochs", "3", "--lr", "1e30"]) == 1
    message = capsys.readouterr().err
    assert "training diverged" in message and "step 5" in message
    assert {name: (the_run_named("_1_") / name).read_bytes() for name in saved} == saved


def the_run_named(part: str) -> Path:
    (folder,) = (path for path in Path("models").iterdir() if part in path.name.partition("CCE")[2])
    return folder


def test_the_record_of_a_checkpoint_is_plain_json_in_its_zip(corpus: Path) -> None:
    import zipfile  # noqa: PLC0415

    assert train(corpus) == 0
    with zipfile.ZipFile(the_run() / "checkpoint_epoch_1.pth") as archive:
        record = json.loads(archive.read("archive/record.json"))
    assert (record["kind"], record["epoch"], record["step"]) == ("epoch", 1, 3)


def test_another_detector_is_refused_even_where_only_figures_are_drawn(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus) == 0
    flags = ["--resume", "--model_path", str(the_run()), "--temporal_bias", "none", "--visualize_attention"]
    assert main(flags) == 1
    assert "--temporal_bias is centre" in capsys.readouterr().err


def test_audio_that_goes_away_in_mid_run_stops_it_with_all_that_was_trained_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    step = take_step

    def training_step(*arguments: Any) -> Any:
        (corpus / "ASVspoof2019_LA_dev" / "flac" / "LA_D_0000005.flac").unlink(missing_ok=True)
        return step(*arguments)

    monkeypatch.setattr("training.loop.trainer.take_step", training_step)
    assert train(corpus) == 1
    message = capsys.readouterr().err
    assert "LA_D_0000005.flac" in message and "--auto_resume goes on from" in message
    assert [path.name for path in the_run().glob("checkpoint*.pth")] == ["checkpoint_step_3.pth"]
    write_corpus(tmp_path / "mended")
    assert train(tmp_path / "mended", "--auto_resume") == 0
    assert "epoch 1 trained, not validated" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["temporary", "last", "best", "best weights", "log", "damage"])
def test_what_a_kill_after_the_last_checkpoint_left_undone_is_done_at_the_next_start(
    left: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(corpus, epochs=2) == 0
    run = the_run()
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix == ".pth"}
    rows = (run / "training_log.csv").read_text()
    for name in {"last": ["last_checkpoint.pth"], "best": ["best_checkpoint_eer.pth"]}.get(left, []):
        (run / name).unlink()
        (run / name).hardlink_to(run / "checkpoint_epoch_1.pth")
    if left == "best":  # whichever epoch is the best, one of the two names is wrong now
        (run / "best_checkpoint_eer.pth").unlink()
    if left == "best weights":
        (run / "best_model_eer.pth").unlink()
    for name in ("last_checkpoint.pth", "best_checkpoint_eer.pth", "best_model_eer.pth") if left == "damage" else ():
        content = bytearray(before[name])
        content[len(content) // 3] ^= 1
        (run / name).unlink()
        (run / name).write_bytes(content)
    if left == "log":
        (run / "training_log.csv").write_text("\n".join(rows.splitlines()[:-1]) + "\n")
    if left == "temporary":
        (run / ".tmp-checkpoint_epoch_2.pth-1-00ff").write_bytes(b"half a checkpoint")
    capsys.readouterr()
    assert train(corpus, "--auto_resume", epochs=2) == 0
    assert "Left undone by a killed process, and done now" in capsys.readouterr().out
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix == ".pth"}
    assert set(after) == set(before)
    assert all(after[name] == before[name] for name in before if name != "best_model_eer.pth")
    assert (run / "training_log.csv").read_text() == rows
    assert not list(run.glob(".tmp-*"))
    assert train(corpus, "--auto_resume", epochs=2) == 0
    assert "Left undone" not in capsys.readouterr().out
