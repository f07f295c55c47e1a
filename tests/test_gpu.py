"""What only a GPU shows: bits of stopped runs, saves beside its queue of work, what is said when its memory is full.

`make test-gpu` runs them; they are skipped in `make test`, which shows no GPU to torch, and where there is none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from main import main
from tests.comparing import assert_same_training, bits, differences, log_rows
from tests.conftest import REPOSITORY, SMALL_RUN, DuringStep, write_corpus
from tests.test_data import make_part
from tests.test_front_end import STABLE, saved_model
from tests.test_vocoder import narrow_vocoder
from training.data.batches import TrainingBatches

# Asked of the driver: torch.cuda.is_available() would start CUDA here, and no fork of this process could use it then.
pytestmark = pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a GPU: make test-gpu")

FRONT_END = ["--ssl_model", "compact", "--lr", "1e-3"]
TRAININGS = {
    "g3_heatmap with all that draws": [*FRONT_END, "--use_contrastive", "--algo", "5", "--crop", "random"],
    "g3_heatmap in bf16": [*FRONT_END, "--precision", "bf16", "--clip_grad_norm", "1"],
    "g3_heatmap in fp16": [*FRONT_END, "--precision", "fp16", "--clip_grad_norm", "1"],
    "g3_heatmap with plain Adam": [*FRONT_END, "--adam", "plain"],
    "g3_heatmap with one class": [*FRONT_END, "--loss", "oc_softmax", "--swa"],
    "sls": ["--model_type", "sls", *FRONT_END],
    "sls in bf16": ["--model_type", "sls", *FRONT_END, "--precision", "bf16"],
    "ssl_mean, frozen": ["--model_type", "ssl_mean", *FRONT_END, "--freeze_ssl"],
    "aasist": ["--model_type", "aasist"],
    "aasist_l in bf16": ["--model_type", "aasist_l", "--precision", "bf16"],
    "aasist with SWA": ["--model_type", "aasist_l", "--swa"],
    "lcnn": ["--model_type", "lcnn", "--accumulate_steps", "2"],
    "lcnn in fp16": ["--model_type", "lcnn", "--precision", "fp16"],
    "ResNet-18": ["--model_type", "spectrogram_resnet18"],
    "ResNet-18 in bf16": ["--model_type", "spectrogram_resnet18", "--precision", "bf16"],
    "Swin": ["--model_type", "spectrogram_swin"],
    "Swin in bf16": ["--model_type", "spectrogram_swin", "--precision", "bf16"],
    "a vocoder": ["--model_type", "hifigan", "--vocoder_size", "small"],
    "a vocoder in fp16": ["--model_type", "hifigan", "--vocoder_size", "small", "--precision", "fp16"],
    "a vocoder in bf16": ["--model_type", "hifigan", "--vocoder_size", "small", "--precision", "bf16"],
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two steps an epoch with batches of two."""
    return write_corpus(tmp_path_factory.mktemp("few"), train=4, dev=2)


@pytest.fixture(scope="module")
def xls_r_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of XLS-R's class, whose attention is torch's own."""
    return saved_model(tmp_path_factory.mktemp("models") / "wav2vec2", "wav2vec2", **STABLE)


@pytest.fixture(autouse=True)
def narrow() -> Iterator[None]:
    """`--vocoder_size small` is so narrow here that a step takes a moment."""
    with narrow_vocoder():
        yield


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def train_in(folder: Path, corpus: Path, *typed: str) -> list[int]:
    """Run the command in `folder` until it ends by itself; return its exit codes."""
    folder.mkdir(exist_ok=True)
    given = ["--batch_size", "2", "--num_epochs", "2", "--num_workers", "0", "--database_path", str(corpus)]
    before, codes = Path.cwd(), list[int]()
    os.chdir(folder)
    try:
        while not codes or codes[-1] == 128 + signal.SIGTERM:
            codes.append(main([*given, *typed, "--auto_resume"]))
            assert len(codes) < 5
    finally:
        os.chdir(before)
    return codes


def run_in(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


def assert_stopping_changes_no_bit(typed: Sequence[str], corpus: Path, tmp_path: Path, during_step: DuringStep) -> None:
    during_step({1: stop, 3: stop})
    codes = train_in(tmp_path / "stopped", corpus, *typed)
    during_step({})
    assert codes[0] == 143 and codes[-1] == 0  # a run of two steps is stopped once, the others twice
    assert train_in(tmp_path / "undisturbed", corpus, *typed) == [0]
    stopped, undisturbed = run_in(tmp_path / "stopped"), run_in(tmp_path / "undisturbed")
    if "hifigan" in typed:
        last = "checkpoint_epoch_2.pth"
        assert differences(bits(stopped / last), bits(undisturbed / last)) == []
    else:
        assert_same_training(stopped, undisturbed)
    assert log_rows(stopped) == log_rows(undisturbed)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    name: str, few: Path, tmp_path: Path, during_step: DuringStep
) -> None:
    assert_stopping_changes_no_bit([*TRAININGS[name], "--device", "cuda"], few, tmp_path, during_step)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_so_does_one_on_a_front_end_of_transformers(
    precision: str, xls_r_like: Path, few: Path, tmp_path: Path, during_step: DuringStep
) -> None:
    typed = [
        "--ssl_model",
        str(xls_r_like),
        "--group_size",
        "1",
        "--lr",
        "1e-4",
        "--precision",
        precision,
        "--device",
        "cuda",
    ]
    assert_stopping_changes_no_bit(typed, few, tmp_path, during_step)


def test_saving_beside_training_and_saving_at_once_give_the_same_checkpoints(few: Path, tmp_path: Path) -> None:
    typed = [*FRONT_END, "--save_interval", "1", "--device", "cuda"]
    for name, more in (("beside", []), ("at-once", ["--sync_save"])):
        assert train_in(tmp_path / name, few, *typed, *more) == [0]
    beside, at_once = (run_in(tmp_path / name) for name in ("beside", "at-once"))
    names = sorted(path.name for path in beside.glob("checkpoint_*.pth"))
    assert names == sorted(path.name for path in at_once.glob("checkpoint_*.pth"))
    assert len(names) >= 3
    for name in names:
        assert differences(bits(beside / name), bits(at_once / name), name) == []


@pytest.mark.parametrize("more", [["--freeze_ssl"], ["--sync_save"], ["--save_interval", "1"]])
def test_every_file_of_a_run_loads_where_there_is_no_gpu(more: list[str], few: Path, tmp_path: Path) -> None:
    """With a plain torch.load, which puts each tensor where the file says that it was."""
    assert train_in(tmp_path, few, *FRONT_END, *more, "--device", "cuda") == [0]
    found = list(run_in(tmp_path).glob("*.pth"))
    assert len(found) >= 4
    for path in found:
        assert b"cuda:" not in _pickle_of(path), path.name


def _pickle_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        return archive.read(name)


def test_a_run_on_the_gpu_goes_on_on_the_cpu_and_back_and_says_so(
    few: Path, workplace: Path, capsys: pytest.CaptureFixture[str], during_step: DuringStep
) -> None:
    during_step({1: stop, 2: stop})
    given = [*SMALL_RUN, "--num_epochs", "2", "--batch_size", "2", "--database_path", str(few), "--auto_resume"]
    name = torch.cuda.get_device_name()
    assert main([*given, "--device", "cuda"]) == 143
    capsys.readouterr()
    assert main([*given, "--device", "cpu"]) == 143
    assert f"device: {name} -> " in capsys.readouterr().out
    assert main([*given, "--device", "cuda"]) == 0
    assert f" -> {name}" in capsys.readouterr().out


def test_scores_of_the_gpu_are_those_of_the_cpu_but_for_the_last_digits(few: Path, tmp_path: Path) -> None:
    assert train_in(tmp_path, few, *FRONT_END, "--device", "cuda") == [0]
    audio = str(few / "ASVspoof2019_LA_dev" / "flac")
    found = []
    for device in ("cpu", "cuda"):
        command = [sys.executable, str(REPOSITORY / "main.py"), "--score", audio, "--model_path", str(run_in(tmp_path))]
        said = subprocess.run([*command, "--json", "--device", device], capture_output=True, text=True, check=True)
        found.append([file["score"] for file in json.loads(said.stdout)["files"]])
    assert found[0]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_pinned_memory(tmp_path: Path, num_workers: int) -> None:
    training = TrainingBatches(make_part(tmp_path), batch_size=4, seed=1, num_workers=num_workers, pin_memory=True)
    assert all(batch.waveforms.is_pinned() for batch in training.batches(1))
    training.close()


def test_a_lack_of_its_memory_is_one_sentence_and_what_was_trained_is_saved(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], during_step: DuringStep
) -> None:
    def take_it_away() -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1e-4)

    typed = ["--model_type", "lcnn", "--device", "cuda"]
    during_step({1: take_it_away})
    try:
        assert train_in(tmp_path / "full", few, *typed) == [1]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    said = capsys.readouterr().err
    assert "the memory of the GPU ran out" in said
    assert "--batch_size" in said
    assert "Traceback" not in said
    assert (run_in(tmp_path / "full") / "checkpoint_step_1.pth").exists()
    during_step({})
    for name in ("full", "undisturbed"):
        assert train_in(tmp_path / name, few, *typed) == [0]
    assert_same_training(run_in(tmp_path / "full"), run_in(tmp_path / "undisturbed"))


def test_one_process_of_torchrun_meets_by_nccl_and_trains_the_same_bits(few: Path, tmp_path: Path) -> None:
    typed = ["--batch_size", "2", "--num_epochs", "2", "--database_path", str(few), "--model_type", "lcnn"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=1"]
    starts = {"plain": [sys.executable], "torchrun": launcher}
    for name, start in starts.items():
        (tmp_path / name).mkdir()
        command = [*start, str(REPOSITORY / "main.py"), *typed, "--accumulate_steps", "2", "--device", "cuda"]
        done = subprocess.run(command, cwd=tmp_path / name, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_same_training(run_in(tmp_path / "torchrun"), run_in(tmp_path / "plain"))


def test_two_processes_on_one_gpu_are_refused(few: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(REPOSITORY / "main.py")]
    given = ["--database_path", str(few), "--model_type", "lcnn", "--accumulate_steps", "2", "--device", "cuda"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(
        [*command, *given], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0
    assert "processes 0 and 1 would share one GPU" in done.stderr
