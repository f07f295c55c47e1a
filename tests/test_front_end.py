"""The front-end: all layers in one pass, real folders loaded whole or refused, and rebuilt without their weights."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from models.front_end import COMPACT_CONFIG, load_front_end, normalized, rebuild_front_end
from utils.errors import UserError

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
FAMILY = [
    ("wav2vec2", {}),
    ("wav2vec2", STABLE),
    ("hubert", {}),
    ("hubert", STABLE),
    ("wavlm", {}),
    ("wavlm", STABLE),
    ("unispeech", STABLE),
    ("unispeech-sat", {}),
    ("data2vec-audio", {"conv_pos_kernel_size": 3}),
    ("wav2vec2-conformer", {}),
]


def saved_model(folder: Path, model_type: str, **changes: Any) -> Path:
    """Save a small model with random weights as its published siblings are saved."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SMALL, **changes})
    AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="module")
def xls_r_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("models") / "wav2vec2", "wav2vec2", **STABLE)


def a_copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, changed: dict[str, Tensor]) -> None:
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def waveform(samples: int = 2000) -> Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("model_type", "changes"), FAMILY)
def test_a_model_of_the_family_loads_rebuilds_and_trains(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    front_end = load_front_end(str(saved_model(tmp_path / "model", model_type, **changes)))
    outputs = front_end(waveform())
    assert outputs.shape == (2, 2, 6, 32)
    outputs.sum(dim=(0, 2)).square().sum().backward()
    without = [name for name, p in front_end.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []

    rebuilt = rebuild_front_end(json.loads(json.dumps(front_end.front_end_config)))
    rebuilt.load_state_dict(front_end.state_dict(), strict=True)
    assert torch.equal(rebuilt.eval()(waveform()), front_end.eval()(waveform()))
    assert rebuilt.front_end_config == front_end.front_end_config


@pytest.mark.parametrize(("model_type", "changes"), [("wav2vec2", STABLE), ("hubert", {}), ("wavlm", {})])
def test_the_outputs_are_those_of_the_layers_before_the_final_norm(
    model_type: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    front_end = load_front_end(str(saved_model(tmp_path / "model", model_type, **changes))).eval()
    final = front_end.model(waveform()).last_hidden_state
    last = front_end(waveform())[:, -1]
    if changes:
        last = front_end.model.encoder.layer_norm(last)
    torch.testing.assert_close(last, final)


def test_the_weights_are_those_of_the_file(xls_r_like: Path) -> None:
    front_end = load_front_end(str(xls_r_like))
    stored = load_file(xls_r_like / "model.safetensors")
    assert all(torch.equal(weight, stored[name]) for name, weight in front_end.model.state_dict().items())


def test_an_xls_r_file_of_the_first_format_loads_with_head_and_old_names(xls_r_like: Path, tmp_path: Path) -> None:
    """facebook/wav2vec2-xls-r-300m: a pickle, names below `wav2vec2.`, weight_g and weight_v, a pretraining head."""
    folder = a_copy(xls_r_like, tmp_path / "old")
    old = {"quantizer.codevectors": torch.zeros(1, 4, 4)}
    for name, weight in load_file(folder / "model.safetensors").items():
        renamed = name.replace("parametrizations.weight.original0", "weight_g")
        old["wav2vec2." + renamed.replace("parametrizations.weight.original1", "weight_v")] = weight
    (folder / "model.safetensors").unlink()
    torch.save(old, folder / "pytorch_model.bin")
    edit_config(folder, architectures=["Wav2Vec2ForPreTraining"])
    expected = load_front_end(str(xls_r_like)).eval()(waveform())
    assert torch.equal(load_front_end(str(folder)).eval()(waveform()), expected)


def test_half_precision_files_are_trained_in_float32(xls_r_like: Path, tmp_path: Path) -> None:
    folder = a_copy(xls_r_like, tmp_path / "half")
    edit_weights(folder, {k: v.half() for k, v in load_file(folder / "model.safetensors").items()})
    edit_config(folder, dtype="float16")
    front_end = load_front_end(str(folder))
    rebuilt = rebuild_front_end(front_end.front_end_config)
    assert {p.dtype for module in (front_end, rebuilt) for p in module.parameters()} == {torch.float32}


def test_no_layer_is_dropped_and_nothing_masked_in_training(tmp_path: Path) -> None:
    folder = saved_model(
        tmp_path / "model", "wav2vec2", layerdrop=1.0, mask_time_prob=0.9, mask_feature_prob=0.9, mask_feature_length=2,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0,
    )  # fmt: skip
    front_end = load_front_end(str(folder))
    in_training = front_end.train()(waveform())
    torch.testing.assert_close(in_training, front_end.eval()(waveform()))


def test_no_output_is_kept_alive_and_no_hook_left_behind() -> None:
    front_end = rebuild_front_end({"model_type": "wav2vec2", **SMALL})
    kept = weakref.ref(front_end(waveform()))
    gc.collect()
    assert kept() is None
    assert all(not module._forward_hooks for module in front_end.modules())


def test_hooks_are_gone_after_a_waveform_too_short_for_a_frame() -> None:
    front_end = rebuild_front_end({"model_type": "wav2vec2", **SMALL})
    with pytest.raises(RuntimeError):
        front_end(waveform(samples=100))
    assert all(not module._forward_hooks for module in front_end.modules())


def test_64600_samples_give_201_frames() -> None:
    front_end = load_front_end("compact").eval()
    assert front_end(torch.zeros(1, 64_600)).shape == (1, 6, 201, 48)


def test_normalised_waveforms_have_zero_mean_and_unit_variance() -> None:
    found = normalized(5 + 0.01 * waveform())
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.var(dim=1, correction=0), torch.ones(2), atol=2e-3, rtol=0)
    assert torch.equal(normalized(torch.zeros(1, 8)), torch.zeros(1, 8))


def test_only_a_normalising_front_end_is_blind_to_loudness() -> None:
    torch.manual_seed(0)
    raw = rebuild_front_end(COMPACT_CONFIG | STABLE | {"conv_bias": True}).eval()  # as XLS-R; a group norm is blind too
    blind = rebuild_front_end(raw.front_end_config, normalize_waveform=True).eval()
    blind.load_state_dict(raw.state_dict())
    torch.testing.assert_close(blind(3 * waveform()), blind(waveform()), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(raw(3 * waveform()), raw(waveform()), atol=1e-3, rtol=1e-3)


def test_xls_r_300m_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        front_end = rebuild_front_end(
            {
                "model_type": "wav2vec2", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                "intermediate_size": 4096, "conv_bias": True, **STABLE,
            }
        )  # fmt: skip
    assert sum(p.numel() for p in front_end.parameters()) == 315_438_720
    assert (front_end.layer_count, front_end.width) == (24, 1024)


def missing_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    edit_weights(folder, {name: w for name, w in weights.items() if "encoder.layers.1." not in name})


def fewer_layers_than_the_file(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)


def another_width(folder: Path) -> None:
    edit_config(folder, intermediate_size=48)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lfs_pointer(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (missing_layer, r"missing, such as encoder\.layers\.1\."),
        (fewer_layers_than_the_file, "left over, such as .*encoder.layers.1."),
        (another_width, "of another size, such as encoder.layers.0.feed_forward"),
        (no_weights, r"folder without weights .*hf download .*--ssl_model compact"),
        (no_config, r"folder without config.json.*hf download .*--ssl_model compact"),
        (broken_config, "config.json"),
        (cut_weights, "cannot be read"),
        (lfs_pointer, "cannot be read"),
        (empty_weights, "cannot be read"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(damage, says: str, xls_r_like: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = a_copy(xls_r_like, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(UserError, match=says) as refusal:
        load_front_end(str(folder))
    assert f"--ssl_model {folder}" in str(refusal.value)


def test_only_the_masking_vector_may_be_missing(xls_r_like: Path, tmp_path: Path) -> None:
    folder = a_copy(xls_r_like, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    del weights["masked_spec_embed"]
    edit_weights(folder, weights)
    assert load_front_end(str(folder)).layer_count == 2


def test_a_model_of_another_family_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"wav2vec2 family .* which is 'bert'"):
        load_front_end(str(tmp_path))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "not a name"])
def test_what_is_neither_folder_nor_hub_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"no folder and no hub name.*--ssl_model compact"):
        load_front_end(name)


def test_a_hub_name_without_network_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    with pytest.raises(UserError, match=r"hf download someone/some-model --local-dir.*--ssl_model compact"):
        load_front_end("someone/some-model")


def test_a_download_in_the_hub_cache_is_used_without_network(
    xls_r_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, commit = tmp_path / "models--someone--some-model", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    a_copy(xls_r_like, repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load_front_end("someone/some-model").layer_count == 2


def test_loading_says_nothing_and_leaves_the_logging_of_transformers_as_it_was(
    xls_r_like: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    folder = a_copy(xls_r_like, tmp_path / "copy")
    edit_weights(folder, load_file(folder / "model.safetensors") | {"quantizer.codevectors": torch.zeros(2)})
    load_front_end(str(folder))
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
