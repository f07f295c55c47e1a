"""--metric_discriminator: it is CMGAN's, learns PESQ of what has one, and is a part of the one matched state."""

from __future__ import annotations

import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from main import main
from models.metric_discriminator import CompressedSpectra, MetricDiscriminator
from tests.comparing import bits, differences
from tests.loading import load_payload
from tests.test_vocoder import narrow_vocoder, refusal, the_run, train
from training.checkpoints.history import History, UnfinishedEpoch
from training.data.loading import Batch
from training.data.shares import StepBatches
from training.loop.step import take_step
from training.settings.identity import run_name
from training.settings.options import Options, options_from_record
from training.state.train_state import TrainState
from training.tasks import judged_vocoder, perceived_quality
from training.tasks.judged_vocoder import JudgedVocoderTask
from training.tasks.perceived_quality import Measure, pesq_measure
from training.tasks.vocoder_weights import METRIC
from utils.audio.waveforms import Waveform
from utils.errors import EXIT_USAGE, UserError

CPU = torch.device("cpu")
FLAG = "--metric_discriminator"
PARTS = (METRIC, "metric_optimizer", "metric_scheduler")
needs_pesq = pytest.mark.skipif(find_spec("pesq") is None, reason="needs pesq: pip install -r requirements-vocoder.txt")


@pytest.fixture(autouse=True)
def narrow() -> Iterator[None]:
    with narrow_vocoder():
        yield


def likeness(source: Waveform, copy: Waveform) -> float | None:
    """A figure in the range of PESQ, none for every third utterance or so."""
    if int(1e6 * float(np.abs(source).sum())) % 3 == 0:
        return None
    return 1 + 3.5 / (1 + float(np.abs(source - copy).mean()))


@pytest.fixture(params=["a figure of ours", pytest.param("PESQ", marks=needs_pesq)])
def measure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Measure]:
    """What the metric discriminator learns in place of PESQ, where that is not installed."""
    found = pesq_measure() if request.param == "PESQ" else likeness
    assert found is not None
    monkeypatch.setattr(judged_vocoder, "required_pesq", lambda: found)
    yield found


class Published(nn.Module):
    """The same layers made of torch's own, with its spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.spectral_norm
        parts: list[nn.Module] = []
        for inputs, outputs in ((2, 16), (16, 32), (32, 64), (64, 128)):
            parts.append(norm(nn.Conv2d(inputs, outputs, (4, 4), (2, 2), (1, 1), bias=False)))
            parts += [nn.InstanceNorm2d(outputs, affine=True), nn.PReLU(outputs)]
        parts += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), norm(nn.Linear(128, 64)), nn.Dropout(0.3), nn.PReLU(64)]
        parts += [norm(nn.Linear(64, 1)), _Slope()]
        self.layers = nn.Sequential(*parts)

    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        said: Tensor = self.layers(torch.cat([real, made], dim=1))
        return said.flatten()


class _Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * values)


def test_it_has_the_published_names_and_gives_the_published_outputs_gradients_and_vectors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ours, theirs = MetricDiscriminator(), Published()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    real, made = torch.rand(2, 3, 1, 201, 82)
    said = []
    for network in (ours, theirs):
        torch.manual_seed(1)  # of dropout
        found = network(real, made), network(real, real)
        (found[0].square() - found[1]).sum().backward()
        said.append(torch.cat(found))
    torch.testing.assert_close(*said)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 181_650
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_spectra_are_compressed_and_do_not_depend_on_the_level_of_the_source_and_silence_has_a_gradient() -> None:
    real = torch.sin(torch.arange(8192) * 2 * torch.pi * 1000 / 16_000).unsqueeze(0)
    of_real, of_half = CompressedSpectra()(real, real / 2)
    assert of_real.shape == (1, 1, 201, 82)
    noise = torch.randn(1, 8192)
    of_noise, again = (CompressedSpectra()(noise / level, real)[0] for level in (1, 3))
    torch.testing.assert_close(of_noise, again, rtol=1e-3, atol=1e-3)
    # A bin of a tone in its centre: half the window's sum of 0.54 x 400, times its amplitude at an RMS of 1.
    assert of_real[0, 0, 25, 40].item() == pytest.approx((0.5 * 0.54 * 400 * 2**0.5) ** 0.3, rel=1e-3)
    assert of_half[0, 0, 25, 40].item() == pytest.approx(0.5**0.3 * of_real[0, 0, 25, 40].item(), rel=1e-3)
    made = torch.zeros(1, 8192, requires_grad=True)
    CompressedSpectra()(torch.zeros(1, 8192), made)[1].sum().backward()
    assert made.grad is not None and made.grad.isfinite().all()


def options(**more: Any) -> Options:
    return Options(model_type="hifigan", vocoder_size="small", metric_discriminator=True, batch_size=3, **more)


def batch(size: int = 3) -> Batch:
    waveforms = 0.1 * torch.randn(size, 8192, generator=torch.Generator().manual_seed(size))
    return Batch(waveforms, torch.ones(size, dtype=torch.int64), torch.arange(size))


def loss_of(figures: list[float | None], said: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, JudgedVocoderTask]:
    given = iter(figures)
    task = JudgedVocoderTask(options(), CPU, lambda source, copy: next(given) if source.shape == copy.shape else None)
    real = batch(len(figures)).waveforms
    return task._loss_of_metric(cast(nn.Module, said), real, 0.5 * real), task


def test_it_shall_say_pesq_of_a_copy_and_1_of_the_source_and_what_has_no_pesq_drops_out() -> None:
    def said(source: Tensor, other: Tensor) -> Tensor:
        return torch.full((len(source),), 0.75 if other is source else 0.25)

    of_two, _ = loss_of([1 + 3.5 * 0.5, 1.0], said)
    assert of_two.item() == pytest.approx(((0.25**2 + 0.25**2) + (0.25**2 + 0.25**2)) / 2)
    dropped, _ = loss_of([1 + 3.5 * 0.5, None], said)
    assert dropped.item() == pytest.approx((0.25**2 + 0.25**2) / 2)


def test_the_gradient_of_an_utterance_without_pesq_is_zero_and_that_of_the_others_as_without_it() -> None:
    network, (real, made) = MetricDiscriminator(), torch.rand(2, 3, 1, 201, 82)
    for _ in range(5):
        network(real, made)  # so that the norms are near
    network.eval()  # without dropout, and with the norms as they are
    found, cases = [], list[list[float | None]]([[2.0, None, 3.0], [None, None, None]])
    for figures in cases:
        network.zero_grad()
        loss, _ = loss_of(figures, network)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append(torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None]))
    assert found[0].abs().sum() > 0 and found[0].isfinite().all()
    assert found[1].numel() == found[0].numel() and not found[1].any()


def test_each_phase_changes_its_own_networks_and_the_generator_hears_what_the_metric_discriminator_says() -> None:
    torch.manual_seed(0)
    task = JudgedVocoderTask(options(), CPU, likeness)
    networks = task.build(None).networks
    optimizers = task.optimizers(networks)
    assert list(optimizers) == ["discriminator_optimizer", "metric_optimizer", "generator_optimizer"]
    assert [each.param_groups[0]["lr"] for each in optimizers.values()] == pytest.approx([2e-4, 4e-4, 2e-4])
    history = History(options().task.figures, UnfinishedEpoch(10), (("a", 0),))
    state = TrainState(networks, optimizers, task.schedules(optimizers, 10), history, kept=dict.fromkeys(task.keeps))
    before = {name: {key: one.clone() for key, one in each.state_dict().items()} for name, each in networks.items()}
    result = take_step(state, task, StepBatches.whole([batch()]))
    assert {name for observed in result.observed for name in observed} == set(task.nothing_observed)
    for name, network in networks.items():
        assert all(parameter.requires_grad for parameter in network.parameters())
        assert differences(dict(network.state_dict()), before[name])
    weight = networks[METRIC].get_parameter("layers.0.weight_orig")
    assert len(optimizers["metric_optimizer"].state) == len(list(networks[METRIC].parameters()))
    assert optimizers["metric_optimizer"].state[weight]["step"] == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({}, "--metric_discriminator is for --model_type hifigan, and g3_heatmap has no use for it"),
        ({"model_type": "lcnn"}, "drop --metric_discriminator, or pass --model_type hifigan"),
    ],
)
def test_it_is_for_the_vocoder_alone(flags: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)) as refused:
        Options(metric_discriminator=True, **flags)
    assert refused.value.exit_code == EXIT_USAGE


def test_it_names_the_folder_and_comes_back_from_a_checkpoint() -> None:
    assert options_from_record(options().as_dict()) == options()
    assert run_name(options()) == "hifigan_small_100_3_0.0002_metric_discriminatorTrue"


def test_without_pesq_it_is_refused_in_a_sentence_before_anything_is_made(
    corpus: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    assert train(corpus, FLAG) == 1
    assert "the package pesq is not installed: pip install -r requirements-vocoder.txt" in refusal(capsys)
    assert not Path("models").exists()


def test_all_parts_are_one_state_that_ends_with_the_same_bits_wherever_it_is_stopped(
    corpus: Path, workplace: Path, measure: Measure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [FLAG, "--num_epochs", "1"]
    assert train(corpus, *flags) == 0
    undisturbed = the_run().rename("undisturbed")
    original, stops = JudgedVocoderTask._loss_of, {1: "metric_optimizer", 2: "generator_optimizer"}
    step = 0

    def loss_and_signal(task: JudgedVocoderTask, phase: str, *given: Any) -> Any:
        nonlocal step
        step += phase == "discriminator_optimizer"
        if stops.get(step) == phase:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(task, phase, *given)

    with monkeypatch.context() as patched:
        patched.setattr(JudgedVocoderTask, "_loss_of", loss_and_signal)
        for updates in stops:
            assert train(corpus, *flags, "--auto_resume") == 143
            payload = load_payload(the_run() / "last_checkpoint.pth")
            for name in ("metric", "generator", "discriminator"):
                assert payload[f"{name}_optimizer_state_dict"]["state"][0]["step"] == updates
    assert train(corpus, *flags, "--auto_resume") == 0
    name = "checkpoint_epoch_1.pth"
    assert differences(bits(the_run() / name), bits(undisturbed / name), name) == []
    payload = load_payload(the_run() / name)
    assert {f"{name}_state_dict" for name in PARTS} <= set(payload)
    assert payload["metrics"]["train_metric"] > 0
    assert payload["metric_optimizer_state_dict"]["param_groups"][0]["lr"] == pytest.approx(4e-4 * 0.999)
    assert main(["--validate_checkpoints", str(the_run())]) == 0
    if measure is likeness:
        _starts_other_runs_with_its_weights(corpus, capsys)


def _starts_other_runs_with_its_weights(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = str(the_run() / "best_model_mel.pth")
    capsys.readouterr()
    for verb in (["--eval", "--database_path", str(corpus)], ["--export", "safetensors"]):
        assert main([*verb, "--model_path", best]) == 0  # of its generator
    assert "Copies of 4 utterances" in (told := capsys.readouterr().out) and "vocoder:     hifigan small" in told
    more = ["--num_epochs", "1", "--num_examples", "2", "--model_path"]
    assert train(corpus, FLAG, *more, best, "--comment", "all") == 0
    assert f"`{METRIC}_state_dict` of {best}" in capsys.readouterr().out
    assert train(corpus, *more, best, "--comment", "three") == 0
    assert "is left aside: --metric_discriminator takes it" in capsys.readouterr().out
    (last,) = Path("models").glob("*_three/checkpoint_epoch_1_three.pth")
    assert train(corpus, FLAG, "--resume", "--model_path", str(last), "--num_epochs", "2") == 1
    assert "--metric_discriminator is False in" in (told := refusal(capsys)) and "that is another vocoder" in told
    (three,) = Path("models").glob("*_three/best_model_mel_three.pth")
    assert train(corpus, FLAG, *more, str(three), "--comment", "new") == 0
    assert f"{three} has no metric discriminator: that begins anew" in capsys.readouterr().out


@needs_pesq
def test_pesq_is_that_of_the_package_and_none_where_it_finds_no_speech_or_too_little() -> None:
    found = pesq_measure()
    assert found is not None
    time = np.arange(16_000) / 16_000
    harmonics = np.arange(1, 20)[:, None]
    speech = (0.3 * (np.sin(2 * np.pi * 150 * harmonics * time) / harmonics).sum(axis=0)).astype(np.float32)
    assert found(speech, speech) == pytest.approx(4.64, abs=0.01)
    noisy = speech + 0.05 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    assert 1.0 < (found(speech, noisy) or 0) < 4
    assert found(0 * speech, noisy) is None and found(speech[:1000], noisy[:1000]) is None
    assert found(speech, np.full_like(speech, np.nan)) is None


def test_a_lack_of_memory_in_pesq_is_no_utterance_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        class PesqError(RuntimeError): ...

        class OutOfMemoryError(PesqError): ...

        @classmethod
        def pesq(cls, *_: object) -> float:
            raise cls.OutOfMemoryError

    monkeypatch.setitem(sys.modules, "pesq", Package)
    found = perceived_quality.required_pesq()
    with pytest.raises(MemoryError):
        found(np.zeros(1, np.float32), np.zeros(1, np.float32))
