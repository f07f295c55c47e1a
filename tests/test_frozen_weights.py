"""With --freeze_ssl the front-end stays as it is, is stored once per run, and no checkpoint is good without it."""

from __future__ import annotations

import os
import shutil
import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from models.front_end import SelfSupervisedFrontEnd
from tests.comparing import assert_same_training, differences, log_rows
from tests.conftest import REPOSITORY, SMALL_RUN
from tests.loading import load_payload, load_weights
from tests.records import record
from tests.test_store import flip_bit
from training.checkpoints.examined import UnusableFile, WeightsFile, examine
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.frozen_reference import FROZEN_KEY, FrozenFile
from training.checkpoints.frozen_weights import (
    content_sha256,
    frozen_weights,
    made_whole,
    with_frozen,
    without_frozen,
)
from training.checkpoints.record import CheckpointRecord, record_from_dict
from training.inference import load_detector
from training.loop.step import take_step
from training.runs.directory import RunDirectory
from training.runs.names import CheckpointNames
from training.saving.store import CheckpointStore
from training.settings.options import Options
from training.settings.requests import EXPORT_FORMATS
from training.state.random_states import seed_random_states
from utils.errors import UserError

SETTINGS = DetectorSettings(ssl_model="compact", freeze_ssl=True)


def train(corpus: Path, *arguments: str | Path, epochs: int = 2) -> int:
    flags = [*SMALL_RUN, "--freeze_ssl", "--database_path", str(corpus), "--num_epochs", str(epochs)]
    return main([*flags, *map(str, arguments)])


def the_run() -> Path:
    (folder,) = Path("models").iterdir()
    return folder


def blob(folder: Path) -> Path:
    (found,) = folder.glob("frozen_*.pth")
    return found


def front_end(state_dict: Any) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state_dict.items() if name.startswith("front_end.")}


def resumable(path: Path) -> CheckpointRecord:
    found = examine(path)
    assert isinstance(found, CheckpointRecord), found
    load_payload(path)
    return found


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run of two epochs was trained, for copies."""
    folder, here = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        assert train(corpus) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def run_folder(trained: Path, workplace: Path) -> Path:
    """The run folder of a copy of it, in the workplace; links stay links."""
    for name in ("models", "logs"):
        shutil.copytree(trained / name, name)
    last = max(the_run().glob("checkpoint_epoch_*.pth"))
    for second in ("last_checkpoint.pth", "best_checkpoint_eer.pth"):
        if (the_run() / second).exists() and (the_run() / second).read_bytes() == last.read_bytes():
            (the_run() / second).unlink()
            (the_run() / second).hardlink_to(last)
    return the_run()


# The front-end


def test_a_frozen_front_end_has_no_gradient_no_dropout_and_no_changing_buffer() -> None:
    detector = create_detector(SETTINGS).train()
    assert detector.training and not any(
        module.training
        for part in detector.modules()
        if isinstance(part, SelfSupervisedFrontEnd)
        for module in part.modules()
    )
    part = detector.get_submodule("front_end")
    waveform = torch.randn(2, 2000)
    outputs = part(waveform)
    assert not outputs.requires_grad
    assert torch.equal(part(waveform), outputs), "something is drawn at random"
    detector.analyse(waveform).log_probabilities.sum().backward()  # type: ignore[no-untyped-call]
    with_gradient = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None}
    assert with_gradient == {"back_end"}


def test_a_rebuilt_front_end_is_frozen_as_well_and_one_that_is_trained_is_not() -> None:
    config = create_detector(SETTINGS).front_end_config
    assert frozen_weights(rebuild_detector(SETTINGS, config)) is not None
    trained = create_detector(DetectorSettings(ssl_model="compact"))
    assert frozen_weights(trained) is None
    assert trained.train().get_submodule("front_end").training


def test_training_leaves_every_bit_of_the_front_end(run_folder: Path) -> None:
    seed_random_states(1234)
    before = front_end(create_detector(SETTINGS).state_dict())
    weights = [load_payload(run_folder / f"checkpoint_epoch_{n}.pth")["model_state_dict"] for n in (1, 2)]
    assert [differences(front_end(after), before) for after in weights] == [[], []]
    assert differences(dict(weights[0]), dict(weights[1])) != [], "nothing was trained"


# The hash and the split


def test_the_hash_is_the_one_that_is_documented() -> None:
    """Worked by hand: sha256sum of the lines and bytes that the docstring describes."""
    import hashlib  # noqa: PLC0415

    tensors = {"b": torch.tensor([1, 258], dtype=torch.int16), "a": torch.tensor(1.0)}
    expected = b'["a", "float32", []]\n\x00\x00\x80\x3f["b", "int16", [2]]\n\x01\x00\x02\x01'
    assert content_sha256(tensors) == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ({"w": torch.arange(6.0).reshape(3, 2).t().contiguous().t()}, True),
        ({"w": torch.arange(6.0).reshape(2, 3)}, False),
        ({"v": torch.arange(6.0).reshape(3, 2)}, False),
        ({"w": torch.arange(6.0, dtype=torch.float64).reshape(3, 2)}, False),
        ({"w": torch.arange(6.0).reshape(3, 2) + 1e-7}, False),
    ],
    ids=["other strides", "another shape", "another name", "another dtype", "another value"],
)
def test_the_hash_says_whether_the_content_is_the_same(changed: dict[str, torch.Tensor], is_same: bool) -> None:
    original = content_sha256({"w": torch.arange(6.0).reshape(3, 2)})
    assert (content_sha256(changed) == original) is is_same


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64, torch.float16])
def test_every_dtype_can_be_hashed(dtype: torch.dtype) -> None:
    assert len(content_sha256({"w": torch.ones(3).to(dtype), "empty": torch.empty(0, dtype=dtype)})) == 64


def test_a_payload_without_frozen_weights_becomes_the_same_again() -> None:
    detector = create_detector(SETTINGS)
    frozen = frozen_weights(detector)
    assert frozen is not None
    payload: dict[str, Any] = {"epoch": 3, "model_state_dict": detector.state_dict(), "args": {}}
    split = without_frozen(payload, frozen)
    assert front_end(split["model_state_dict"]) == {}
    assert split["frozen_weights"] == {
        "file": f"frozen_{frozen.reference.sha256[:16]}.pth",
        "sha256": frozen.reference.sha256,
        "bytes": sum(tensor.numel() * 4 for tensor in front_end(detector.state_dict()).values()),
        "names": list(front_end(detector.state_dict())),
    }
    whole = with_frozen(split, frozen.tensors)
    assert differences(whole, payload) == []
    assert whole["model_state_dict"]._metadata == payload["model_state_dict"]._metadata
    assert list(whole) == list(payload)


def test_nothing_is_split_where_nothing_is_frozen() -> None:
    payload = {"model_state_dict": OrderedDict(w=torch.ones(1))}
    assert without_frozen(payload, None) == payload


# What lies on disk


def test_the_front_end_is_stored_once_and_checkpoints_shrink_by_its_bytes(run_folder: Path) -> None:
    names = {path.name for path in run_folder.glob("*.pth")}
    assert {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth", blob(run_folder).name} <= names
    checkpoint = run_folder / "checkpoint_epoch_2.pth"
    assert front_end(torch.load(checkpoint, weights_only=True)["model_state_dict"]) == {}
    record = resumable(checkpoint)
    assert record.frozen is not None
    assert record.frozen.file == blob(run_folder).name
    assert main(["--export", "checkpoint", "--model_path", str(checkpoint), "--export_path", "whole.pth"]) == 0
    saved = Path("whole.pth").stat().st_size - checkpoint.stat().st_size
    assert saved == pytest.approx(record.frozen.bytes, rel=0.1)
    found = examine(blob(run_folder))
    assert isinstance(found, FrozenFile) and found.sha256 == record.frozen.sha256
    assert content_sha256(torch.load(blob(run_folder), weights_only=True)["model_state_dict"]) == found.sha256


def test_the_best_weights_for_reuse_are_whole(run_folder: Path, workplace: Path) -> None:
    shutil.copy(run_folder / "best_model_eer.pth", "elsewhere.pth")
    shutil.rmtree("models")
    weights = load_weights(Path("elsewhere.pth"))
    assert FROZEN_KEY not in weights.payload
    assert len(front_end(weights.state_dict)) > 0
    assert isinstance(load_detector("elsewhere.pth").detector, Detector)
    assert isinstance(examine(Path("elsewhere.pth")), WeightsFile)


def test_a_stopped_frozen_run_resumed_ends_with_the_same_bits_and_its_front_end_is_not_written_again(
    corpus: Path, trained: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen, stored = take_step, [0], []

    def watched(*arguments: Any) -> Any:
        result = original(*arguments)
        seen[0] += 1
        if seen[0] in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr("training.loop.trainer.take_step", watched)
    for code in (143, 143, 0):
        assert train(corpus, "--auto_resume") == code
        stored.append(blob(the_run()).stat())
    (undisturbed,) = (trained / "models").iterdir()
    assert_same_training(the_run(), undisturbed)
    assert log_rows(the_run()) == log_rows(undisturbed)
    assert len({(found.st_ino, found.st_mtime_ns) for found in stored}) == 1


def take_away(path: Path) -> str:
    path.unlink()
    return "are missing: looked in "


def damage(path: Path) -> str:
    flip_bit(path, 0.3)
    return "are damaged: its checksum does not match"


def cut(path: Path) -> str:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "cannot be used: "


def exchange(path: Path) -> str:
    shutil.copy(path.parent / "best_model_eer.pth", path)
    return "it holds something else"


HARM = [take_away, damage, cut, exchange]


@pytest.mark.parametrize("harm", HARM)
def test_a_checkpoint_whose_frozen_weights_are_gone_or_damaged_is_named_and_not_used(
    run_folder: Path, corpus: Path, capsys: pytest.CaptureFixture[str], harm: Any
) -> None:
    file = blob(run_folder)
    words = harm(file)
    before = {path: path.read_bytes() for path in run_folder.glob("*.pth")}
    checkpoint = run_folder / "checkpoint_epoch_2.pth"
    with pytest.raises(UserError, match=f"{file.name}.*{words}"):
        load_payload(checkpoint)
    with pytest.raises(UserError, match=f"{file.name}.*{words}"):
        load_weights(checkpoint)
    capsys.readouterr()
    assert main(["--validate_checkpoints", str(run_folder)]) == 1
    told = capsys.readouterr().out
    assert f"{checkpoint}: UNUSABLE: the frozen weights that it needs, " in told and words in told
    for typed in (
        [*SMALL_RUN, "--freeze_ssl", "--database_path", str(corpus), "--num_epochs", "2", "--auto_resume"],
        ["--resume", "--model_path", str(checkpoint), "--database_path", str(corpus), "--num_epochs", "3"],
        ["--model_path", str(checkpoint), "--database_path", str(corpus)],
        *(["--export", name, "--model_path", str(checkpoint)] for name in EXPORT_FORMATS),
    ):
        assert main(typed) == 1
        said = capsys.readouterr().err
        assert "the frozen weights that it needs" in said and words in said
    assert {path: path.read_bytes() for path in run_folder.glob("*.pth")} == before


def test_a_checkpoint_moved_alone_says_what_it_misses_and_works_once_that_is_beside_it(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("usb").mkdir()
    moved = Path(shutil.copy(run_folder / "checkpoint_epoch_2.pth", "usb"))
    found = examine(moved)
    assert isinstance(found, UnusableFile)
    stored = front_end(load_weights(run_folder / moved.name).state_dict)
    size = f"{sum(tensor.nbytes for tensor in stored.values()) / 1000:.1f} kB"
    assert found.reason == (
        f"the frozen weights that it needs, {blob(run_folder).name} ({size}), are missing: "
        "looked in usb and .; copy that file beside it"
    )
    assert main(["--inspect_checkpoint", str(moved)]) == 1
    capsys.readouterr()
    shutil.copy(blob(run_folder), "usb")
    shutil.rmtree(run_folder)
    resumable(moved)
    assert main(["--inspect_checkpoint", str(moved)]) == 0
    assert f"more, in {blob(Path('usb')).name}" in capsys.readouterr().out


def test_frozen_weights_have_a_line_of_their_own_and_start_nothing(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = blob(run_folder)
    assert main(["--validate_checkpoints", str(run_folder)]) == 0
    assert f"{file}: frozen weights: ok" in capsys.readouterr().out
    assert main(["--list_checkpoints", "--model_path", str(run_folder)]) == 0
    assert f"Frozen weights of these: {file} (" in capsys.readouterr().out
    assert main(["--inspect_checkpoint", str(file)]) == 0
    assert "Kind: frozen weights, which checkpoints refer to" in capsys.readouterr().out
    assert main(["--model_path", str(file)]) == 1
    assert "holds the frozen weights that checkpoints refer to, and no detector" in capsys.readouterr().err


@pytest.mark.parametrize("before", ["nothing", "the same", "damaged"])
def test_the_frozen_weights_are_written_where_they_are_not_whole_already(workplace: Path, before: str) -> None:
    run = RunDirectory(Path("run"))
    run.folder.mkdir(parents=True)
    names = CheckpointNames.of(Options())
    store = CheckpointStore(run, names, frozen=frozen_weights(create_detector(SETTINGS)))
    if before != "nothing":
        written = store.keep_frozen()
        assert written is not None
        if before == "damaged":
            flip_bit(written, 0.3)
        inode = written.stat().st_ino
    kept = store.keep_frozen()
    assert kept is not None and isinstance(examine(kept), FrozenFile)
    assert before != "the same" or kept.stat().st_ino == inode
    assert store.frozen is not None
    payload = without_frozen({"model_state_dict": create_detector(SETTINGS).state_dict()}, store.frozen)
    whole = made_whole(payload, run.epoch_checkpoint(1))["model_state_dict"]
    assert differences(front_end(whole), dict(store.frozen.tensors)) == []


def test_frozen_weights_that_went_away_while_training_are_written_again_before_the_next_checkpoint(
    workplace: Path,
) -> None:
    """As where the run folder was removed or unmounted."""
    run = RunDirectory(Path("run"))
    run.folder.mkdir(parents=True)
    detector = create_detector(SETTINGS)
    frozen = frozen_weights(detector)
    assert frozen is not None
    store = CheckpointStore(run, CheckpointNames.of(Options()), frozen=frozen)
    payload = without_frozen({"model_state_dict": detector.state_dict()}, frozen)
    path = store.save(payload, record("", 1, frozen=frozen.reference))
    assert isinstance(examine(path), CheckpointRecord)


def test_a_forged_reference_reads_no_file_of_another_name(run_folder: Path) -> None:
    path = run_folder / "checkpoint_epoch_2.pth"
    record = resumable(path)
    stored = record.as_dict()
    for frozen in ({"file": "../../secret", "sha256": "../../secret", "bytes": 1}, {"file": "x"}, "x", [1]):
        with pytest.raises(BadCheckpointFileError, match="its record is damaged"):
            record_from_dict(stored | {"frozen": frozen}, path, 1)
    assert (
        record_from_dict(stored | {"frozen": stored["frozen"] | {"file": "../../x"}}, path, 1).frozen == record.frozen
    )


@pytest.mark.parametrize("name", ["checkpoint_epoch_2.pth", "checkpoint_step_24.pth"])
def test_a_checkpoint_of_format_1_is_whole(name: str) -> None:
    found = examine(REPOSITORY / "tests" / "fixtures" / "format_1" / name)
    assert isinstance(found, CheckpointRecord)
    assert found.frozen is None


# Moving aside and bringing along


def test_a_fresh_start_moves_the_frozen_weights_with_the_run(run_folder: Path, corpus: Path) -> None:
    name = blob(run_folder).name
    assert train(corpus, "--fresh_start", epochs=2) == 0
    resumable(run_folder / "version_1" / "checkpoint_epoch_2.pth")
    assert (run_folder / "version_1" / name).is_file() and (run_folder / name).is_file()


def test_what_is_moved_aside_in_part_finds_them_in_the_run_folder_and_wherever_they_go_later(
    run_folder: Path, corpus: Path
) -> None:
    name = blob(run_folder).name
    assert train(corpus, "--resume", "--model_path", run_folder / "checkpoint_epoch_1.pth") == 0
    moved = run_folder / "version_1" / "checkpoint_epoch_2.pth"
    assert not (moved.parent / name).exists()
    resumable(moved)
    resumable(run_folder / "checkpoint_epoch_2.pth")
    assert train(corpus, "--fresh_start", epochs=2) == 0
    (run_folder / name).unlink()  # those of the new run; what was moved finds its own
    assert (run_folder / "version_2" / name).is_file()
    resumable(moved)
    assert train(corpus, "--resume", "--model_path", moved, epochs=3) == 0


def test_a_run_that_goes_on_in_another_folder_brings_them_along(run_folder: Path, corpus: Path) -> None:
    inode = blob(run_folder).stat().st_ino
    source = run_folder / "checkpoint_epoch_1.pth"
    assert train(corpus, "--resume", "--model_path", source, "--comment", "other") == 0
    other = Path(f"{run_folder}_other")
    assert blob(other).stat().st_ino == inode
    run_folder.rename("gone")
    for name in ("checkpoint_epoch_1_other.pth", "checkpoint_epoch_2_other.pth", "best_checkpoint_eer_other.pth"):
        resumable(other / name)


# Resuming with another setting, exporting


@pytest.mark.parametrize("flag", ["--freeze_ssl", "--no-freeze_ssl"])
def test_freezing_or_thawing_on_resume_is_refused_with_the_way_out(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    opposite = "--no-freeze_ssl" if flag == "--freeze_ssl" else "--freeze_ssl"
    assert train(corpus, opposite, epochs=1) == 0
    checkpoint = the_run() / "checkpoint_epoch_1.pth"
    assert main(["--resume", "--model_path", str(checkpoint), flag, "--num_epochs", "2"]) == 1
    said = capsys.readouterr().err
    assert f"--freeze_ssl is {opposite == '--freeze_ssl'} in {checkpoint} and {flag == '--freeze_ssl'} now" in said
    assert f"start a new run from the weights: --fresh_start --model_path {checkpoint}" in said
    assert train(corpus, flag, "--fresh_start", "--model_path", checkpoint, "--comment", "new", epochs=1) == 0


def test_an_exported_checkpoint_resumes_in_an_empty_folder_to_the_same_bits(
    run_folder: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run_folder / "checkpoint_epoch_1.pth"
    assert main(["--export", "checkpoint", "--model_path", str(source)]) == 0
    written = run_folder / "checkpoint_epoch_1_whole.pth"
    assert f"Exported {source} to {written} (" in capsys.readouterr().out
    assert differences(load_payload(written), load_payload(source)) == []
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    written = Path(shutil.move(tmp_path / written, "a.pth"))
    assert resumable(written).frozen is None
    assert main(["--validate_checkpoints", "a.pth"]) == 0
    assert train(corpus, "--resume", "--model_path", "a.pth") == 0
    expected, found = (load_payload(f / "checkpoint_epoch_2.pth") for f in (tmp_path / run_folder, the_run()))
    assert differences(dict(found["model_state_dict"]), dict(expected["model_state_dict"])) == []
    assert differences(found["optimizer_state_dict"], expected["optimizer_state_dict"]) == []


def test_exporting_overwrites_nothing_and_refuses_weights_alone(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, taken = run_folder / "checkpoint_epoch_2.pth", Path("taken.pth")
    taken.write_text("mine")
    assert main(["--export", "checkpoint", "--model_path", str(source), "--export_path", "taken.pth"]) == 1
    assert "--export_path taken.pth exists already" in capsys.readouterr().err
    assert taken.read_text() == "mine"
    assert main(["--export", "checkpoint", "--model_path", str(run_folder / "best_model_eer.pth")]) == 1
    assert "holds weights only and is whole already: copy it" in capsys.readouterr().err
    assert main(["--export", "checkpoint", "--model_path", str(source), "--export_path", "no/such/folder.pth"]) == 1
    assert "--export_path no/such/folder.pth: there is no folder no/such" in capsys.readouterr().err
