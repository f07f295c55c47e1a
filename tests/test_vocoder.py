"""A vocoder taken through the whole program, narrow enough for a second: one matched state, wherever it is stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch

from main import main
from models.hifigan import SHAPES, VocoderShape
from tests.comparing import bits, differences
from tests.loading import load_payload
from tests.test_loss_scaler import watched_scales
from training.checkpoints.verified_file import open_verified
from training.data.segments import SegmentView, at_peak
from training.evaluation import vocoding
from training.settings.identity import run_name
from training.settings.options import Options, options_from_record
from training.spoofs.sounds import FULL_SCALE
from training.state import loss_scaler
from training.tasks.vocoder import VocoderTask
from training.tasks.vocoder_weights import NETWORKS
from training.tasks.vocoding import Vocoder, generator_in
from utils.corpora import find_corpus
from utils.errors import EXIT_USAGE, UserError
from utils.waiting import NEVER

PARTS = (
    *NETWORKS,
    *("generator_optimizer", "discriminator_optimizer", "generator_scheduler", "discriminator_scheduler"),
)
NARROW = VocoderShape(
    (8, 8, 4),
    (16, 16, 8),
    16,
    (3,),
    ((1, 2),),
    is_doubled=False,
    period_widths=(2, 2, 2, 2, 2),
    scale_widths=(4, 4, 4, 4, 4, 4, 4),
    scale_groups=(1, 2, 2, 2, 2, 2, 1),
)
LAST = "checkpoint_epoch_2.pth"


@contextmanager
def narrow_vocoder() -> Iterator[None]:
    """Let `--vocoder_size small` be so narrow."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(cast(dict[str, VocoderShape], SHAPES), "small", NARROW)
        yield


@pytest.fixture(autouse=True)
def narrow() -> Iterator[None]:
    with narrow_vocoder():
        yield


def train(corpus: Path, *arguments: str) -> int:
    flags = ["--model_type", "hifigan", "--vocoder_size", "small", "--batch_size", "2", "--num_workers", "0"]
    return main([*flags, "--num_epochs", "2", "--database_path", str(corpus), *arguments])


def the_run() -> Path:
    (folder,) = Path("models").iterdir()
    return folder


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run of two epochs of three steps, which no test changes."""
    place = tmp_path_factory.mktemp("vocoder")
    with narrow_vocoder(), chdir(place):
        assert train(corpus) == 0
    yield place


@pytest.fixture
def trained(finished: Path, workplace: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(finished / "models", workplace / "models")
    return the_run()


def test_all_parts_are_in_one_file_and_the_run_has_the_names_of_its_figure(trained: Path) -> None:
    assert trained.name == "hifigan_small_2_2_0.0002"
    payload = load_payload(trained / LAST)
    assert {f"{name}_state_dict" for name in PARTS} <= set(payload)
    assert payload["generator_state_dict"].keys() >= {"conv_pre.weight_g", "conv_pre.weight_v"}
    assert load_payload(trained / "best_checkpoint_mel.pth")["best_val_mel"] == payload["best_val_mel"]
    weights = torch.load(trained / "best_model_mel.pth", weights_only=True)
    assert {f"{name}_state_dict" for name in NETWORKS} <= set(weights)
    assert not any("optimizer" in name for name in weights)


def test_it_hears_bona_fide_speech_alone(corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(corpus, "--num_examples", "3", "--num_epochs", "1") == 0
    assert "Data: 3 training and 4 validation utterances" in capsys.readouterr().out  # of 12 and 8


def test_the_rate_falls_by_a_thousandth_an_epoch_for_both(trained: Path) -> None:
    payload = load_payload(trained / LAST)
    for name in ("generator_optimizer", "discriminator_optimizer"):
        (group,) = payload[f"{name}_state_dict"]["param_groups"]
        assert group["lr"] == pytest.approx(2e-4 * 0.999**2)
        assert (tuple(group["betas"]), group["weight_decay"]) == ((0.8, 0.99), 0.01)


def test_a_run_that_goes_on_at_another_rate_says_so_and_has_it(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--lr", "1e-4", "--num_epochs", "3", "--num_workers", "0"]
    assert main(["--resume", "--model_path", str(trained), "--load_checkpoint_type", "best", *arguments]) == 0
    told = capsys.readouterr().out
    assert re.search(r"Learning rate: +9.98001e-05 \(", told) and re.search(r"Best val mel distance: \d", told)
    (group,) = load_payload(Path("models/hifigan_small_3_2_0.0001") / "checkpoint_epoch_3.pth")[
        "generator_optimizer_state_dict"
    ]["param_groups"]
    assert group["lr"] == pytest.approx(1e-4 * 0.999**3)


def test_stopped_in_either_phase_of_a_step_it_ends_with_the_bits_of_never_stopping(
    corpus: Path, finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal before the generator's update comes after that of the discriminators: no file has one of them alone."""
    original = VocoderTask.loss
    first, second = VocoderTask.phases
    phases = {0: first, 1: second, 3: second, 5: first}  # of the step after so many

    def loss_and_signal(task: VocoderTask, state: Any, batch: Any, step: Any) -> Any:
        if step.phase == phases.get(state.step):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, state, batch, step)

    with monkeypatch.context() as patched:
        patched.setattr(VocoderTask, "loss", loss_and_signal)
        for step in (done + 1 for done in phases):
            assert train(corpus, "--auto_resume") == 143
            payload = load_payload(the_run() / "last_checkpoint.pth")
            assert {_updates(payload, name) for name in ("generator", "discriminator")} == {step}
    assert train(corpus, "--auto_resume") == 0
    for name in ("checkpoint_epoch_1.pth", LAST, "best_checkpoint_mel.pth"):
        undisturbed = next((finished / "models").iterdir()) / name
        assert differences(bits(the_run() / name), bits(undisturbed), name) == []


def test_in_half_precision_weights_and_spectral_norms_stay_float32_and_losses_are_near(
    corpus: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step of the same weights and batch gives differs by the rounding of maps, no more."""
    monkeypatch.setattr(loss_scaler, "INITIAL_SCALE", 1.0)  # at which nothing overflows
    found = {}
    for name in ("fp32", "bf16", "fp16"):
        assert train(corpus, "--num_epochs", "1", "--num_examples", "2", "--precision", name, "--comment", name) == 0
        (path,) = Path("models").glob(f"*_{name}/checkpoint_epoch_1_{name}.pth")
        found[name] = load_payload(path)
    precise = found.pop("fp32")
    for other in found.values():
        for figure in ("train_discriminator", "train_generator", "train_mel"):
            assert other["metrics"][figure] == pytest.approx(precise["metrics"][figure], rel=0.01)
        assert other["metrics"]["train_generator"] != precise["metrics"]["train_generator"]
        for key, tensor in precise["msd_state_dict"].items():
            assert other["msd_state_dict"][key].dtype == torch.float32
            if key.endswith("weight_u"):  # of the same weights in the first phase, and after one update in the second
                torch.testing.assert_close(tensor, other["msd_state_dict"][key], rtol=0, atol=0.05)


def test_stopped_where_the_scale_changes_both_optimizers_end_with_the_bits_of_never_stopping(
    corpus: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One scaler: each optimizer skips for itself, and the scale is changed once after both."""
    scales, stops = watched_scales(monkeypatch, 512.0, 1)  # near what the generator's gradients bear
    flags = ["--precision", "fp16", "--num_epochs", "1", "--batch_size", "1"]
    assert train(corpus, *flags) == 0
    undisturbed, changes = the_run().rename("undisturbed"), [after / one for one, after in pairwise(scales)]
    stops[:] = [changes.index(0.5) + 1, changes.index(2.0) + 1]
    for _ in set(stops):
        assert train(corpus, *flags, "--auto_resume") == 143
    assert train(corpus, *flags, "--auto_resume") == 0
    name = "checkpoint_epoch_1.pth"
    assert differences(bits(the_run() / name), bits(undisturbed / name), name) == []
    payload = load_payload(the_run() / name)
    assert payload["scaler_state_dict"]["scale"] == scales[6]


def _updates(payload: Mapping[str, Any], name: str) -> int:
    return int(payload[f"{name}_optimizer_state_dict"]["state"][0]["step"])


def test_several_batches_a_step_are_one_large_batch(corpus: Path, workplace: Path) -> None:
    for size, accumulated in (("4", "1"), ("2", "2")):
        flags = ["--batch_size", size, "--accumulate_steps", accumulated, "--num_epochs", "1", "--num_examples", "4"]
        assert train(corpus, *flags, "--comment", size) == 0
    found = sorted(Path("models").iterdir())
    one, other = (load_payload(next(folder.glob("checkpoint_epoch_1_*.pth"))) for folder in found)
    for name in NETWORKS:  # the vectors of the spectral norm, too, which move once for all batches
        for key, tensor in one[f"{name}_state_dict"].items():
            torch.testing.assert_close(tensor, other[f"{name}_state_dict"][key], rtol=1e-3, atol=1e-4)


def test_the_page_shows_what_the_first_and_the_last_epoch_made_of_an_utterance(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    captions = re.findall(r"<figcaption>([^<]*)</figcaption><img src=\"data:image/png", page)
    assert captions == [
        "An utterance of the dev part",
        "Made of it after the first epoch",
        "Made of it at the last validation",
    ]
    assert "EER" not in re.sub(r"<section id=\"settings\">.*?</section>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"algo": 5}, "--algo is for detectors, and --model_type hifigan has no use for it: drop --algo"),
        ({"loss": "focal"}, "--loss is for detectors"),
        ({"scheduler": "cosine"}, "--scheduler is for detectors"),
        ({"swa": True}, "--swa is for detectors"),
        ({"group_size": 4}, "--group_size is for --model_type g3_heatmap, and hifigan has no use for it"),
    ],
)
def test_what_is_for_detectors_is_refused(flags: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as refused:
        Options(model_type="hifigan", **flags)
    assert refused.value.exit_code == EXIT_USAGE


def test_its_options_come_back_from_a_checkpoint_and_name_its_folder() -> None:
    options = Options(model_type="hifigan", comment="a")
    assert options_from_record(options.as_dict()) == options
    assert run_name(options) == "hifigan_V1_100_16_0.0002_a"
    assert run_name(options.replaced(seed=2)) == "hifigan_V1_100_16_0.0002_seed2_a"


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_halves_of_two_runs_glued_by_hand_are_refused_with_and_without_the_seal(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = load_payload(trained / LAST), load_payload(trained / "checkpoint_epoch_1.pth")
    glued = {**one, "mpd_state_dict": other["mpd_state_dict"], "msd_state_dict": other["msd_state_dict"]}
    torch.save(glued, "glued.pth")
    for verb in ("--resume", "--fresh_start"):
        assert train(corpus, verb, "--model_path", "glued.pth") == 1
    told = capsys.readouterr().err
    assert "this file holds weights only" in told  # nothing to resume from
    assert "no seal of this program says that they are of one step of one run" in told
    content = bytearray((trained / LAST).read_bytes())
    tensor = one["mpd_state_dict"]["discriminators.0.conv_post.weight_v"].numpy().tobytes()
    foreign = other["mpd_state_dict"]["discriminators.0.conv_post.weight_v"].numpy().tobytes()
    assert content.count(tensor) == 1 and tensor != foreign
    (trained / LAST).write_bytes(bytes(content).replace(tensor, foreign))
    assert train(corpus, "--resume", "--model_path", str(trained / LAST)) == 1
    assert "is damaged" in refusal(capsys)


def test_half_of_a_pair_is_refused(trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(load_payload(trained / LAST)["generator_state_dict"], "half.pth")
    assert train(corpus, "--fresh_start", "--model_path", "half.pth") == 1
    assert "against the discriminators that it was trained against" in refusal(capsys)


def test_a_run_starts_from_the_best_weights_of_another(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = str(trained / "best_model_mel.pth")
    assert train(corpus, "--model_path", best, "--num_epochs", "1", "--comment", "more") == 0
    assert capsys.readouterr().out.count("Weights: `") == 3
    assert train(corpus, "--vocoder_size", "V2", "--model_path", best, "--comment", "other") == 1
    assert "Most likely --vocoder_size is not that of these weights" in refusal(capsys)
    path = str(trained / LAST)
    assert train(corpus, "--resume", "--model_path", path, "--vocoder_size", "V2") == 1
    assert "--vocoder_size is small in" in (told := refusal(capsys)) and "that is another vocoder" in told


def published(
    trained: Path, step: int, of_discriminators: int, name: int | None = None, into: Path = Path("public")
) -> Path:
    """Write a run as jik876/hifi-gan does; values are of our making, names and places theirs."""
    payload, folder = load_payload(trained / "best_checkpoint_mel.pth"), into
    folder.mkdir(exist_ok=True)
    torch.save({"generator": payload["generator_state_dict"]}, folder / f"g_{step:08d}")
    parts = {part: payload[f"{part}_state_dict"] for part in ("mpd", "msd")}
    optimizers: dict[str, Any] = {f"optim_{letter}": {"state": {}, "param_groups": []} for letter in "gd"}
    found = {**parts, **optimizers, "steps": of_discriminators, "epoch": 3}
    torch.save(found, folder / f"do_{of_discriminators if name is None else name:08d}")
    config = {"num_mels": 80, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "fmin": 0, "fmax": 8000}
    (folder / "config.json").write_text(json.dumps({**config, "sampling_rate": 22050}))
    return folder / f"g_{step:08d}"


def test_public_files_are_read_as_weights_of_one_step(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published(trained, 2_500_000, 2_500_000)
    assert train(corpus, "--model_path", str(path), "--num_epochs", "1", "--comment", "more") == 0
    told = capsys.readouterr().out
    assert "`generator` of public/g_02500000" in told and "`msd` of public/do_02500000" in told
    assert "trained at 22050 Hz, on bands up to 8000 Hz: here it goes on at 16000 Hz, up to 8000 Hz" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (None, "g_02500000 is a generator of step 2500000.* found do_02400000, of another step"),
        (2_500_000, "g_02500000 is of step 2500000 and .*do_02500000 says that it is of step 2400000"),
    ],
)
def test_public_files_of_two_steps_are_refused_with_both_numbers(
    name: int | None, told: str, trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published(trained, 2_500_000, 2_400_000, name)
    assert train(corpus, "--model_path", str(path), "--comment", "more") == 1
    assert re.search(told, refusal(capsys))


@pytest.mark.parametrize(
    ("change", "told"),
    [({"hop_size": 300}, "hop_size 300 there and 256 here"), ({"fmax": ...}, "cannot be read as the settings")],
)
def test_public_weights_for_other_spectra_are_refused(
    change: dict[str, Any], told: str, trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published(trained, 7, 7)
    config = json.loads((path.parent / "config.json").read_text()) | change
    (path.parent / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    assert train(corpus, "--model_path", str(path), "--comment", "more") == 1
    assert told in refusal(capsys)


def test_evaluation_copies_the_bona_fide_utterances_and_drops_those_without_a_figure(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([1.0, None, 2.0, None])
    measures = {"pesq": lambda source, copy: next(found) if len(source) == len(copy) else None}
    monkeypatch.setattr(vocoding, "_measure", measures.get)
    capsys.readouterr()
    assert main(["--eval", "--model_path", str(trained), "--database_path", str(corpus), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"mel": 4, "pesq": 2} and document["means"]["pesq"] == 1.5
    assert document["missing"] == ["pystoi"]
    lines = Path(document["copies"]["path"]).read_text().splitlines()
    assert lines[0] == "utterance\tmel\tpesq" and len(lines) == 5 and lines[2].endswith("\t-")


def test_spoofs_are_made_by_trained_vocoders_and_named_by_their_weights(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(folder: str, *vocoders: str) -> int:
        return main(["--make_spoofs", folder, "--database_path", str(corpus), *vocoders])

    first = str(trained / "checkpoint_epoch_1.pth")
    assert make("spoofs", "--vocoders", first, "--model_path", str(trained)) == 0
    attacks = find_corpus(Path("spoofs")).dev.protocol.attacks
    assert [re.sub("_[0-9a-f]{8}$", "", attack) for attack in attacks] == [
        "hifigan_small_epoch1",
        "hifigan_small_epoch2",
    ]
    one, other = (sorted(Path("spoofs/dev", attack).iterdir()) for attack in attacks)
    for copy, another, source in zip(one, other, sorted(Path("spoofs/dev/bonafide").iterdir()), strict=True):
        assert copy.read_bytes() != another.read_bytes()
        assert soundfile.info(copy).frames == soundfile.info(source).frames
        (made, _), (heard, _) = soundfile.read(copy), soundfile.read(source)
        would_clip = np.abs(made).max() == pytest.approx(FULL_SCALE, abs=1e-3)  # a vocoder of two epochs makes peaks
        wanted = np.sqrt(np.mean(heard**2))
        assert np.sqrt(np.mean(made**2)) == pytest.approx(wanted, rel=1e-2) or (made.std() < wanted and would_clip)
    assert make("others", "--vocoders", str(trained), str(trained / LAST)) == 1
    assert "are one vocoder: name it once" in refusal(capsys)
    shutil.copy(first, "renamed.pth")
    assert make("again", "--vocoders", "renamed.pth") == 0
    assert find_corpus(Path("again")).dev.protocol.attacks == attacks[:1]
    assert sorted(path.read_bytes() for path in one) == sorted(
        path.read_bytes() for path in Path("again/dev", attacks[0]).iterdir()
    )


def test_scoring_by_a_vocoder_and_what_goes_with_scores_are_refused(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = str(next(corpus.rglob("*.flac")))
    assert main(["--score", audio, "--model_path", str(trained)]) == 1
    assert "a vocoder makes speech and judges none" in refusal(capsys)
    assert main(["--eval", "--model_path", str(trained), "--plots", "figures"]) == EXIT_USAGE
    assert "--plots goes with scores" in refusal(capsys)


def test_the_generator_is_exported_and_gives_the_same_waveforms(
    trained: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("torchscript", "safetensors"):
        assert main(["--export", name, "--model_path", str(trained / LAST)]) == 0
    told = capsys.readouterr().out
    assert "vocoder:     hifigan small, epoch 2" in told and "mel (batch, 80, frames): any batch, any length" in told
    exported = torch.jit.load(trained / "checkpoint_epoch_2.torchscript")  # type: ignore[no-untyped-call]
    (waveform,) = exported(torch.zeros(1, 80, 7))
    assert waveform.shape == (1, 7 * 256)


def test_the_generator_is_exported_to_onnx(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    assert main(["--export", "onnx", "--model_path", str(trained / LAST)]) == 0
    assert "any length" in capsys.readouterr().out


def test_a_segment_is_drawn_by_its_position_at_the_level_of_training() -> None:
    waveform = np.linspace(0.001, 0.5, 20_000, dtype=np.float32)
    view = SegmentView(seed=1)
    first = view(waveform, 1, "a")
    assert np.array_equal(first, view(waveform, 1, "a"))
    assert first.shape == (8192,) and first.dtype == np.float32
    others = (view(waveform, 2, "a"), view(waveform, 1, "b"), SegmentView(2)(waveform, 1, "a"))
    assert all(first[0] != other[0] for other in others)
    short = view(waveform[:100], 1, "a")
    assert short[99] == pytest.approx(0.95) and not short[100:].any()
    assert at_peak(np.zeros(4, np.float32))[1] == 1.0


def test_a_copy_has_the_length_and_the_level_of_its_source() -> None:
    class Echo(torch.nn.Module):
        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            return torch.full((1, 256 * mel.shape[2]), 0.95)

    vocoder = Vocoder(Echo(), torch.device("cpu"))
    for samples in (1, 300, 1025, 5000):
        copy = vocoder.copy(np.full(samples, 0.25, np.float32))
        assert copy.waveform.shape == (samples,) and copy.waveform == pytest.approx(0.25)


def test_it_is_heard_beside_its_source(trained: Path, corpus: Path) -> None:
    options = Options(model_type="hifigan", vocoder_size="small")
    task, part = VocoderTask(options, torch.device("cpu")), find_corpus(corpus).dev
    generator = generator_in(open_verified(trained / LAST), options)[0]
    examples = task.audio_examples({"generator": generator}, task.heard(part), NEVER)
    assert [one.label for one in examples] == ["bona fide", "vocoded"] * 4
    source, copy = examples[:2]
    assert source.name == copy.name and source.waveform.shape == copy.waveform.shape
    assert (source.score, copy.measure) == (0.0, "mel distance") and copy.score > 0.5


def test_the_shape_of_a_size_may_change_and_a_checkpoint_keeps_its_own(
    trained: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cast(dict[str, VocoderShape], SHAPES), "small", replace(NARROW, width=32))
    assert main(["--resume", "--model_path", str(trained / LAST), "--num_epochs", "3", "--num_workers", "0"]) == 0
