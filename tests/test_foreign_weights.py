"""Weights of fairseq's and torchvision's files: renamed and reshaped to what a detector has, and everything said."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from main import main
from models.build import create_detector, rebuild_detector
from models.detector import Detector, DetectorSettings
from models.fairseq_names import is_for_pretraining_only, transformers_name
from models.front_end import COMPACT_CONFIG, load_front_end
from tests.comparing import differences
from training.checkpoints.foreign_weights import adapted_from_photographs, renamed_from_fairseq
from training.checkpoints.weights import Weights, load_into, taken_text
from utils.errors import UserError

# fairseq/models/wav2vec/wav2vec2.py of XLS-R: its names, and what transformers' conversion script makes of them.
PAIRS = {
    "mask_emb": "masked_spec_embed",
    "layer_norm.weight": "feature_projection.layer_norm.weight",
    "post_extract_proj.bias": "feature_projection.projection.bias",
    "feature_extractor.conv_layers.0.0.weight": "feature_extractor.conv_layers.0.conv.weight",
    "feature_extractor.conv_layers.6.2.1.bias": "feature_extractor.conv_layers.6.layer_norm.bias",
    "feature_extractor.conv_layers.0.2.weight": "feature_extractor.conv_layers.0.layer_norm.weight",
    "encoder.pos_conv.0.bias": "encoder.pos_conv_embed.conv.bias",
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    "encoder.layer_norm.weight": "encoder.layer_norm.weight",
    "encoder.layers.23.self_attn.out_proj.weight": "encoder.layers.23.attention.out_proj.weight",
    "encoder.layers.1.self_attn_layer_norm.bias": "encoder.layers.1.layer_norm.bias",
    "encoder.layers.1.fc1.weight": "encoder.layers.1.feed_forward.intermediate_dense.weight",
    "encoder.layers.1.fc2.weight": "encoder.layers.1.feed_forward.output_dense.weight",
    "encoder.layers.1.final_layer_norm.weight": "encoder.layers.1.final_layer_norm.weight",
}
PRETRAINING = {"quantizer.vars": (1, 4, 2), "project_q.weight": (2, 2), "final_proj.bias": (2,)}


@pytest.mark.parametrize(("fairseq", "transformers"), PAIRS.items())
def test_a_layer_of_fairseq_is_found_in_transformers(fairseq: str, transformers: str) -> None:
    assert transformers_name(fairseq) == transformers
    assert not is_for_pretraining_only(fairseq)


def small(model_type: str, seed: int, **config: object) -> Detector:
    torch.manual_seed(seed)
    shape = COMPACT_CONFIG | {"num_hidden_layers": 3} | config
    return rebuild_detector(DetectorSettings(model_type=model_type, ssl_model="compact"), shape).eval()


def fairseq_name(name: str, layer_norms: bool) -> str:
    """The way back, written apart from the code under test."""
    for ours, theirs in (
        (r"(conv_layers\.\d+)\.conv\.", r"\1.0."),
        (r"(conv_layers\.\d+)\.layer_norm\.", r"\1.2.1." if layer_norms else r"\1.2."),
        (r"feature_projection\.projection", "post_extract_proj"),
        (r"feature_projection\.layer_norm", "layer_norm"),
        (r"masked_spec_embed", "mask_emb"),
        (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
        (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
        (r"pos_conv_embed\.conv\.", "pos_conv.0."),
        (r"(layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
        (r"(layers\.\d+)\.attention\.", r"\1.self_attn."),
        (r"feed_forward\.intermediate_dense", "fc1"),
        (r"feed_forward\.output_dense", "fc2"),
    ):
        name, times = re.subn(ours, theirs, name)
        if times:
            return name
    return name


def as_published(detector: Detector, *, layer_norms: bool, wrapper: str = "") -> dict[str, torch.Tensor]:
    """The state dict that QiShanZhang/SLSforASVspoof-2021-DF saves (model.py): XLS-R in `ssl_model.model`."""
    published = {}
    for name, tensor in detector.state_dict().items():
        front = name.removeprefix("front_end.model.")
        own = f"ssl_model.model.{fairseq_name(front, layer_norms)}" if front != name else name.removeprefix("back_end.")
        published[wrapper + own] = tensor
    extra = {f"ssl_model.model.{name}": torch.zeros(shape) for name, shape in PRETRAINING.items()}
    return published | {wrapper + name: tensor for name, tensor in extra.items()}


@pytest.mark.parametrize(
    ("model_type", "config", "wrapper"),
    [
        ("sls", {"feat_extract_norm": "layer", "conv_bias": True, "mask_time_prob": 0.075}, ""),
        ("sls", {}, "module."),
        ("g3_heatmap", {"feat_extract_norm": "layer"}, ""),
        ("ssl_mean", {"mask_time_prob": 0.075}, ""),
    ],
)
def test_a_detector_on_fairseqs_front_end_is_loaded_and_says_the_same(
    model_type: str, config: dict[str, object], wrapper: str
) -> None:
    source, target = small(model_type, 1, **config), small(model_type, 2, **config)
    published = as_published(source, layer_norms=config.get("feat_extract_norm") == "layer", wrapper=wrapper)
    weights = renamed_from_fairseq(Weights(Path("SLS.pth"), published, {}), target)
    said = taken_text(weights, load_into(target, weights))
    assert differences(dict(target.state_dict()), dict(source.state_dict())) == []
    assert f"; the front-end in `{wrapper}ssl_model.model.` has the names of fairseq, which were translated; " in said
    assert "tensors of its pretraining not used (" in said and "quantizer.vars" in said
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(3)) / 10
    with torch.no_grad():
        first, second = (one.analyse(waveform).log_probabilities for one in (source, target))
    assert torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_the_position_convolution_is_normalised_by_the_same_dimension_as_in_fairseq() -> None:
    """There: nn.utils.weight_norm(conv, name="weight", dim=2), as one length for each place of the kernel."""
    detector = small("sls", 1)
    ours = detector.get_submodule("front_end.model.encoder.pos_conv_embed.conv")
    theirs = nn.Conv1d(48, 48, 128, padding=64, groups=16)
    theirs = nn.utils.weight_norm(theirs, name="weight", dim=2)
    theirs.load_state_dict(
        {
            "bias": ours.bias,
            "weight_g": ours.get_parameter("parametrizations.weight.original0"),
            "weight_v": ours.get_parameter("parametrizations.weight.original1"),
        }
    )
    signal = torch.randn(1, 48, 50)
    torch.testing.assert_close(theirs(signal), ours(signal), atol=1e-6, rtol=0)


def test_a_layer_that_nobody_knows_is_refused_and_a_front_end_alone_is_called_so() -> None:
    source, target = small("sls", 1), small("sls", 2)
    published = as_published(source, layer_norms=False)
    odd = renamed_from_fairseq(Weights(Path("x.pth"), {**published, "fc9.weight": torch.ones(1)}, {}), target)
    with pytest.raises(UserError, match=r"1 unknown \(fc9.weight\)"):
        load_into(target, odd)
    alone = {
        name.removeprefix("ssl_model.model."): part for name, part in published.items() if name.startswith("ssl_model")
    }
    with pytest.raises(UserError, match="It holds a front-end and no detector"):
        load_into(target, renamed_from_fairseq(Weights(Path("x.pt"), alone, {}), target))


@pytest.mark.parametrize(
    ("model_type", "first", "last"),
    [("spectrogram_resnet18", "conv1.weight", "fc"), ("spectrogram_swin", "features.0.0.weight", "head")],
)
def test_weights_trained_on_photographs_are_taken_without_their_last_layer(
    model_type: str, first: str, last: str
) -> None:
    from torchvision import models as torchvision_models  # noqa: PLC0415

    torch.manual_seed(1)
    network = torchvision_models.resnet18() if last == "fc" else torchvision_models.swin_t()
    torch.manual_seed(2)
    detector = create_detector(DetectorSettings(model_type=model_type, ssl_model="compact")).eval()
    drawn = {name: part.clone() for name, part in detector.state_dict().items() if name.startswith("output.")}
    weights = adapted_from_photographs(Weights(Path("w.pth"), network.state_dict(), {}), detector)
    said = taken_text(weights, load_into(detector, weights))
    assert (
        f"; trained on photographs: the three channels of `{first}` summed into one; `{last}` of 1,000 classes" in said
    )
    assert all(torch.equal(part, detector.state_dict()[name]) for name, part in drawn.items())
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    setattr(network, last, nn.Identity())
    with torch.no_grad():
        expected = network.eval()(grey.expand(1, 3, 64, 64))
        found = detector.get_submodule("backbone")(grey)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_training_starts_from_the_file_that_torchvision_publishes(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.models import resnet18  # noqa: PLC0415

    torch.save(resnet18().state_dict(), "resnet18-f37072fd.pth")
    flags = ["--model_type", "spectrogram_resnet18", "--model_path", "resnet18-f37072fd.pth", "--num_epochs", "1"]
    small_run = ["--batch_size", "4", "--num_workers", "0", "--num_examples", "4", "--database_path", str(corpus)]
    assert main([*flags, *small_run]) == 0
    assert "the three channels of `conv1.weight` summed into one" in capsys.readouterr().out
    assert main(["--eval", *flags[:4], "--database_path", str(corpus)]) == 1


@pytest.mark.parametrize("layer_norms", [True, False], ids=["as XLS-R", "as wav2vec2-base"])
def test_a_front_end_is_loaded_from_the_file_that_fairseq_saved(workplace: Path, layer_norms: bool) -> None:
    norm = {"feat_extract_norm": "layer" if layer_norms else "group", "do_stable_layer_norm": layer_norms}
    source = small("ssl_mean", 1, conv_bias=layer_norms, mask_time_prob=0.075, **norm)
    published = as_published(source, layer_norms=layer_norms)
    model = {name.removeprefix("ssl_model.model."): part for name, part in published.items() if "ssl_model" in name}
    settings = {"encoder_attention_heads": 4, "layer_norm_first": layer_norms, "dropout": 0.0, "_name": "wav2vec2"}
    torch.save({"args": argparse.Namespace(lr=1), "cfg": {"model": settings}, "model": model}, "xlsr2_300m.pt")
    front_end = load_front_end("xlsr2_300m.pt").eval()
    assert front_end.model.config.hidden_dropout == 0.0
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(3)) / 10
    with torch.no_grad():
        assert torch.equal(front_end(waveform), source.get_submodule("front_end")(waveform))

    del model["encoder.layers.1.fc2.weight"]
    torch.save({"model": model}, "cut.pt")
    with pytest.raises(UserError, match=r"--ssl_model cut.pt: 1 tensors are missing.* encoder.layers.1.feed_forward"):
        load_front_end("cut.pt")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text("a note"), r"--ssl_model x.pt is a file and none that fairseq saved"),
        (lambda path: torch.save({"model": {"a": torch.ones(1)}}, path), r"it has no encoder.layers.0.self_attn"),
        (
            lambda path: torch.save({"encoder.layers.0.self_attn.k_proj.weight": torch.ones(1)}, path),
            "it has no feature_",
        ),
    ],
    ids=["no weights", "another model", "a part of one"],
)
def test_another_file_as_a_front_end_is_refused(workplace: Path, write: Callable[[Path], object], words: str) -> None:
    write(Path("x.pt"))
    with pytest.raises(UserError, match=words):
        load_front_end("x.pt")
