"""W&B is a guest: asked for or never imported, and whatever goes wrong with it costs a line, not a training."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from main import main
from tests.conftest import write_corpus
from tests.loading import load_payload
from tests.records import STEPS_PER_EPOCH, record
from tests.test_logs import RUN, complete, state_after
from training.reports.story import Moment, Story
from training.reports.wandb_files import points_in_file, records_in
from training.reports.wandb_run import WandbRun
from training.settings.options import Options
from training.settings.wandb import WandbIdentity, refuse_missing_package
from training.state.train_state import TrainState
from utils.errors import UserError

OFFLINE = Options(wandb=True, wandb_mode="offline")
KNOWN = WandbIdentity("abc12345", "first try", "speech")


@pytest.fixture(autouse=True)
def nobody_is_logged_in(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workplace))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_RUN_ID", "NETRC"):
        monkeypatch.delenv(name, raising=False)


def points() -> dict[str, list[int]]:
    """Return the numbers of the points in each file of W&B, by the id of its run."""
    files = RUN.logs_folder.glob("wandb/*run-*/run-*.wandb")
    return {path.stem.removeprefix("run-"): points_in_file(path) for path in files}


@pytest.fixture
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)


def train(workplace: Path, *arguments: str) -> int:
    corpus = workplace / "corpus"
    if not corpus.exists():
        write_corpus(corpus, train=4, dev=4)
    typed = ["--model_type", "lcnn", "--batch_size", "2", "--num_workers", "0", "--num_epochs", "1"]
    return main([*typed, "--database_path", str(corpus), *arguments])


@pytest.mark.parametrize("flags", [[], ["--wandb", "--wandb_mode", "disabled"]], ids=["not asked for", "disabled"])
def test_a_training_without_wandb_never_imports_it(workplace: Path, not_imported: None, flags: list[str]) -> None:
    assert train(workplace, *flags) == 0
    assert "wandb" not in sys.modules


def test_a_missing_package_is_a_sentence_that_says_what_to_install(
    not_imported: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match=r"pip install -r requirements-wandb\.txt"):
        refuse_missing_package()


def tell(run: WandbRun, state: TrainState, moment: Moment) -> None:
    saved = record("last.pth", state.epoch, step=state.epoch * STEPS_PER_EPOCH)
    run.tell(Story(OFFLINE, state.history, moment=moment, saved=saved))


def test_without_a_login_the_points_go_into_files(capsys: pytest.CaptureFixture[str]) -> None:
    state = state_after(2)
    run = WandbRun(RUN, Options(wandb=True, wandb_mode="online", wandb_project="speech"), None)
    tell(run, state, Moment.BEGUN)
    said = capsys.readouterr().out
    assert "[WARNING] W&B cannot be used online (RuntimeError: no login: run `wandb login`" in said
    assert (
        f"W&B: run run ({run.identity.run_id}) of project speech, offline. To send it: WANDB_RESUME=allow wan" in said
    )
    run.close()
    assert points() == {run.identity.run_id: [0, 1]}


def test_a_run_that_was_logged_elsewhere_goes_on_and_a_failure_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    state = state_after(2)
    run = WandbRun(RUN, OFFLINE, KNOWN)
    tell(run, state, Moment.BEGUN)
    complete(state)
    tell(run, state, Moment.SAVED)
    run._run.finish()  # as if W&B had ended
    until = time.monotonic() + 10
    while points() != {"abc12345": [2]} and time.monotonic() < until:
        time.sleep(0.05)
    capsys.readouterr()
    for _ in range(2):
        complete(state)
        tell(run, state, Moment.SAVED)
    run.close()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("[WARNING] W&B failed (UsageError: ")
    assert points() == {"abc12345": [2]}


def test_going_on_from_an_older_checkpoint_begins_a_new_run_offline(capsys: pytest.CaptureFixture[str]) -> None:
    run = WandbRun(RUN, OFFLINE, KNOWN, left_later=True)
    tell(run, state_after(2), Moment.BEGUN)
    run.close()
    assert run.identity.run_id != KNOWN.run_id
    assert "abc12345 has epochs that come after this checkpoint" in capsys.readouterr().out
    assert points() == {run.identity.run_id: [0, 1]}


@pytest.mark.parametrize("wanted", ["", KNOWN.run_id])
def test_a_copied_run_folder_begins_a_new_run_unless_the_one_of_before_is_named(
    wanted: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if wanted:
        monkeypatch.setenv("WANDB_RUN_ID", wanted)
    run = WandbRun(RUN, OFFLINE, KNOWN, goes_on_elsewhere=True)
    tell(run, state_after(2), Moment.BEGUN)
    run.close()
    said = f"W&B: a new run {run.identity.run_id}; the training of abc12345 may go on in the folder that this one"
    assert (said in capsys.readouterr().out) is not bool(wanted)
    assert (run.identity.run_id == KNOWN.run_id) is bool(wanted)
    assert points() == {run.identity.run_id: [] if wanted else [0, 1]}


def test_a_copy_of_a_workplace_stores_a_run_of_its_own(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it goes on under another name, since it trains for longer; without a copy that is the same run."""
    flags = ["--wandb", "--wandb_mode", "offline", "--auto_resume"]
    original, copy = workplace / "original", workplace / "copy"
    original.mkdir()
    monkeypatch.chdir(original)
    assert train(original, *flags) == 0
    shutil.copytree(original / "models", copy / "models")
    ids = []
    for place in (original, copy):
        monkeypatch.chdir(place)
        assert train(place, *flags, "--num_epochs", "2") == 0
        for epoch in (1, 2):
            (checkpoint,) = place.glob(f"models/*_{epoch}_2_*/checkpoint_epoch_{epoch}.pth")
            ids.append(load_payload(checkpoint)["wandb_run_id"])
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_checkpoints_and_audio_are_sent_and_ids_are_left_out_where_that_is_asked_for(workplace: Path) -> None:
    flags = ["--log_model", "--log_audio", "--no_save_wandb_metadata"]
    assert train(workplace, "--wandb", "--wandb_mode", "offline", *flags) == 0
    (file,) = workplace.glob("logs/*/wandb/offline-run-*/*.wandb")
    artifacts = {record.artifact.type: record.artifact for record in records_in(file) if record.HasField("artifact")}
    names = {entry.path for entry in artifacts["model"].manifest.contents}
    assert names == {"best_checkpoint_eer.pth", "last_checkpoint.pth"}
    sounds = {entry.path for entry in artifacts["run_table"].manifest.contents if entry.path.endswith(".wav")}
    assert len(sounds) == 4
    assert not (workplace / ".local").exists(), "W&B keeps what it needs in the logs folder"
    (checkpoint,) = workplace.glob("models/*/checkpoint_epoch_1.pth")
    assert WandbIdentity.in_payload(load_payload(checkpoint)) is None


def test_after_a_stop_a_service_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = threading.Event()
    monkeypatch.setattr("training.reports.wandb_run.HURRIED_TIMEOUT_S", 0.05)
    monkeypatch.setattr(WandbRun, "_finish", lambda _: silent.wait())
    wandb = WandbRun(RUN, OFFLINE, None)
    wandb._run = object()
    wandb.tell(Story(OFFLINE, state_after(1).history, interrupted="by SIGTERM", moment=Moment.ENDED))
    wandb.close()
    silent.set()
    assert "[NOTE] W&B did not take all of it within 0 s: the next start sends the rest." in capsys.readouterr().out
