"""Weights out of files of every kind that is passed around: where they are found, how they fit, what is refused."""

from __future__ import annotations

import argparse
import collections
import copy
import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from main import main
from tests.comparing import differences
from tests.loading import load_verified, load_weights
from training.checkpoints.checking import Verdict, check_file
from training.checkpoints.examined import UnusableFile, WeightsFile, examine
from training.checkpoints.inspection import code_complaints
from training.checkpoints.tensor_table import FOREIGN_DATA, is_loaded, read_tensor_table
from training.checkpoints.verified_load import stand_ins
from training.checkpoints.weights import Weights, load_into, taken_text
from utils.errors import UserError


class SmallDetector(nn.Module):
    """Layers under the names that a real detector has."""

    def __init__(self, width: int = 4, layers: int = 2, projection: bool = False) -> None:
        super().__init__()
        front_end = {"feature_projection": nn.Linear(2, width), "layers": nn.ModuleList()}
        self.front_end = nn.ModuleDict(front_end)
        for _ in range(layers):
            self.front_end["layers"].append(nn.Linear(width, width))  # type: ignore[operator]
        self.back_end = nn.ModuleDict({"classifier": nn.Linear(width, 2)})
        if projection:
            self.back_end["projection"] = nn.Linear(width, 8)


WHOLE = SmallDetector().state_dict()
OTHER = nn.Linear(2, 3).state_dict()
OPTIMIZER = {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0, 1]}]}
SETTINGS = argparse.Namespace(lr=np.float64(1e-4), out=Path("exp/a"), seeds=np.arange(3), names=["a"])


def behind(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in WHOLE.items()}


def part(prefix: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in WHOLE.items() if name.startswith(prefix)}


# (where it comes from, what the file holds, the key and the prefix that are told, what is told not to be used)
LAYOUTS: list[tuple[str, Any, str, str, str]] = [
    ("g3_heatmap, full", {"epoch": 10, "model_state_dict": WHOLE, "optimizer_state_dict": OPTIMIZER, "train_loss": 0.1,
     "val_eer": 0.16, "best_val_eer": 0.16, "args": {"lr": 1e-6}}, "model_state_dict", "", ""),
    ("g3_heatmap, its settings a Namespace", {"epoch": 10, "model_state_dict": WHOLE, "args": SETTINGS},
     "model_state_dict", "", ""),
    ("g3_heatmap, legacy", {"model_state_dict": WHOLE}, "model_state_dict", "", ""),
    ("g3_heatmap, legacy, bare", WHOLE, "", "", ""),
    ("Miipher-2 adapter", {"step": 5000, "epoch": 2, "model_state_dict": WHOLE, "optimizer_state_dict": OPTIMIZER,
     "scheduler_state_dict": {"last_epoch": 3}, "wandb_run_id": "abc123", "config": {"model": {"width": 4}},
     "random_states": {"python": (3, tuple(range(5)), None), "numpy": np.random.get_state(),
                       "torch": torch.get_rng_state(), "torch_cuda": []}}, "model_state_dict", "", ""),
    ("HiFi-GAN fine-tuning", {"step": 10000, "model_state_dict": WHOLE, "optimizer_state_dict": OPTIMIZER,
     "mpd_state_dict": OTHER, "msd_state_dict": OTHER, "opt_d_state_dict": OPTIMIZER,
     "scaler_state_dict": {"scale": 65536.0}}, "model_state_dict", "", "mpd_state_dict, msd_state_dict"),
    ("KoeMorph", {"epoch": 3, "global_step": 9, "model_state_dict": WHOLE, "optimizer_state_dict": OPTIMIZER,
     "metrics": {"loss": np.float32(0.5)}, "config": {"model": {"name": "koe"}}}, "model_state_dict", "", ""),
    ("BSRNN", {"epoch": 119, "model_state_dict": WHOLE, "discriminator_state_dict": OTHER,
     "optimizer_state_dict": OPTIMIZER, "optimizer_disc_state_dict": OPTIMIZER, "val_loss": 0.1, "best_val_loss": 0.1},
     "model_state_dict", "", "discriminator_state_dict"),
    ("Lightning, the network its `model`", {"epoch": 1, "global_step": 10_000, "pytorch-lightning_version": "2.1",
     "state_dict": behind("model."), "optimizer_states": [OPTIMIZER], "hyper_parameters": {"lr": 1e-4}, "loops": {}},
     "state_dict", "model.", ""),
    ("Lightning, the network its `net`", {"state_dict": behind("net.")}, "state_dict", "net.", ""),
    ("Lightning, compiled", {"state_dict": behind("model._orig_mod.")}, "state_dict", "model._orig_mod.", ""),
    ("DataParallel", behind("module."), "", "module.", ""),
    ("torch.compile", {"model": behind("_orig_mod.")}, "model", "_orig_mod.", ""),
    ("DataParallel around torch.compile", {"model": behind("module._orig_mod.")}, "model", "module._orig_mod.", ""),
    ("detection toolkits", {"model": WHOLE, "optimizer": OPTIMIZER}, "model", "", ""),
    ("model_state", {"model_state": WHOLE}, "model_state", "", ""),
    ("HiFi-GAN, published", {"generator": WHOLE}, "generator", "", ""),
    ("net", {"net": WHOLE, "acc": np.float64(99.0)}, "net", "", ""),
    ("weights", {"weights": WHOLE}, "weights", "", ""),
    ("a state dict within the model's entry", {"model": {"state_dict": WHOLE, "lr": 0.1}}, "model.state_dict", "", ""),
    ("a `model` that is a configuration", {"model": {"width": 4}, "net": WHOLE}, "net", "", ""),
    ("a default dictionary of figures", {"model": WHOLE, "curves": collections.defaultdict(list, {"loss": [0.5]})},
     "model", "", ""),
    ("an ordered dictionary", collections.OrderedDict(model=collections.OrderedDict(WHOLE)), "model", "", ""),
    ("the version of torch", {"model": WHOLE, "torch": torch.__version__}, "model", "", ""),
]  # fmt: skip
IDS = [row[0] for row in LAYOUTS]


def saved(folder: Path, content: Any, **how: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path, **how)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(("why", "content", "key", "prefix", "unused"), LAYOUTS, ids=IDS)
def test_weights_are_taken_from_every_layout_and_it_is_said_from_where(
    tmp_path: Path, why: str, content: Any, key: str, prefix: str, unused: str, zipped: bool
) -> None:
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    detector = SmallDetector()
    weights = load_weights(path)
    said = taken_text(weights, load_into(detector, weights))
    assert differences(dict(detector.state_dict()), dict(WHOLE)) == []
    assert said == (
        f"Weights: {f'`{key}` of' if key else 'the whole of'} {path}, 8 tensors"
        + (f", `{prefix}` taken off their names" if prefix else "")
        + (f", not used: {unused}" if unused else "")
    )


@pytest.mark.parametrize(("why", "content", "key", "prefix", "unused"), LAYOUTS, ids=IDS)
def test_a_file_that_loads_is_good_to_start_from_and_none_to_resume(
    workplace: Path, capsys: pytest.CaptureFixture[str], why: str, content: Any, key: str, prefix: str, unused: str
) -> None:
    path = saved(workplace, content)
    assert isinstance(examine(path), WeightsFile)
    assert check_file(path).verdict is Verdict.WEIGHTS_ONLY
    assert main(["--resume", "--model_path", path.name]) == 1
    said = capsys.readouterr().err
    assert "this file holds weights only" in said and "no optimizer, epoch or random state to resume from" in said
    assert sorted(entry.name for entry in workplace.iterdir()) == ["weights.pth"]


def test_safetensors_are_read_checked_and_listed(workplace: Path) -> None:
    path = workplace / "model.safetensors"
    save_file(behind("model.") | {"model.half": torch.ones(2, 3, dtype=torch.bfloat16)}, path)
    assert load_weights(path).state_dict["model.half"].dtype is torch.bfloat16
    save_file(behind("model."), path)
    detector = SmallDetector()
    assert load_into(detector, load_weights(path)) == "model."
    assert differences(dict(detector.state_dict()), dict(WHOLE)) == []
    assert isinstance(examine(path), WeightsFile)
    assert "only its structure was checked" in check_file(path).line()
    listed = {tensor.name: (tensor.shape, tensor.dtype, tensor.bytes) for tensor in read_tensor_table(path).tensors}
    assert listed["model.back_end.classifier.weight"] == ((2, 4), "float32", 32)
    assert main(["--resume", "--model_path", path.name]) == 1


@pytest.mark.parametrize(
    ("kept", "words"), [(0.99, "it was cut short"), (0.1, "within its header"), (0.0, "it is empty")]
)
def test_a_cut_safetensors_file_is_named(tmp_path: Path, kept: float, words: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(WHOLE, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    found = examine(path)
    assert isinstance(found, UnusableFile) and words in found.reason
    with pytest.raises(UserError, match=words):
        load_weights(path)


class _RunsCode:
    """What a hostile file holds: unpickling it makes a folder named `proof`."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, ("proof",)


@pytest.mark.parametrize(
    "content",
    [
        {"model": WHOLE, "args": argparse.Namespace(hook=_RunsCode())},
        {"model": WHOLE, "curves": collections.defaultdict(list, {"x": [_RunsCode()]})},
        {"model": WHOLE, "objects": np.array([_RunsCode()], dtype=object)},
    ],
    ids=["in a Namespace", "in a default dictionary", "in an array of objects"],
)
def test_code_is_refused_also_within_data_that_is_taken(workplace: Path, content: Any) -> None:
    path = saved(workplace, content)
    with pytest.raises(UserError, match=r"posix\.mkdir.*could run code, so it is refused"):
        load_weights(path)
    assert check_file(path).verdict is Verdict.UNUSABLE
    assert not (workplace / "proof").exists()


FOREIGN_VALUES: list[Any] = [
    SETTINGS,
    *(np.float64(1), np.float32(1), np.int64(1), np.bool_(True), np.str_("a"), np.dtype("float32")),
    *(np.zeros((2, 3)), np.array(["a"]), np.array([None], dtype=object), np.array([(1, 2.0)], dtype="i4,f8")),
    *(collections.defaultdict(str, a="b"), collections.defaultdict(float, a=0.5)),
    *(Path("a"), collections.defaultdict(dict, {"a": {}}), collections.defaultdict(int, a=1), torch.__version__),
    {np.int64(3): 1},
    np.random.get_state(),
]


@pytest.mark.parametrize("value", FOREIGN_VALUES, ids=lambda value: f"{type(value).__name__}-{value}"[:30])
def test_inspection_and_loading_agree_on_what_is_taken(tmp_path: Path, value: Any) -> None:
    path = saved(tmp_path, {"model": WHOLE, "beside": [value]})
    assert code_complaints(read_tensor_table(path)) == []
    assert differences(dict(load_weights(path).state_dict), dict(WHOLE)) == []


@pytest.mark.parametrize(
    "value",
    [collections.deque([1]), SmallDetector(), range(3), slice(1), os.getcwd, np.random.default_rng(1)],
    ids=lambda value: type(value).__name__,
)
def test_inspection_and_loading_agree_on_what_is_refused(tmp_path: Path, value: Any) -> None:
    path = saved(tmp_path, {"model": WHOLE, "beside": value})
    assert code_complaints(read_tensor_table(path)) != []
    with pytest.raises(UserError, match="could run code, so it is refused"):
        load_weights(path)


def test_loading_builds_nothing_that_a_file_names_but_what_stands_in_for_it(tmp_path: Path) -> None:
    assert [name for _, name in stand_ins()] == list(FOREIGN_DATA)  # type: ignore[misc]
    assert {made.__module__ for made, _ in stand_ins()} == {"training.checkpoints.verified_load"}  # type: ignore[misc]
    assert all(is_loaded(name) for name in FOREIGN_DATA)
    loaded = load_verified(
        saved(tmp_path, {"args": SETTINGS, "eer": np.float64(1), "curves": collections.defaultdict(list)})
    )
    assert {key: type(value).__name__ for key, value in loaded.items()} == {
        "args": "DroppedValue",
        "eer": "DroppedValue",
        "curves": "dict",
    }


def test_nothing_stays_allowed_after_a_file_was_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": WHOLE, "args": SETTINGS})
    load_weights(path)
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(gzip.compress(pickle.dumps({"model": WHOLE}))), "it is compressed with gzip"),
        (lambda path: path.write_bytes(pickle.dumps({"model": WHOLE})), "it is a plain pickle"),
        (lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]}, protocol=2)), "it is a plain pickle"),
        (lambda path: path.write_bytes(pickle.dumps({"x": _RunsCode()}, protocol=4)), "it is a plain pickle"),
    ],
    ids=["gzip and pickle", "a pickle", "a pickle as old as torch's format", "a hostile pickle"],
)
def test_pickles_that_torch_did_not_write_are_refused_with_the_way_out(
    workplace: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path], object], words: str
) -> None:
    path = workplace / "weights.pth"
    write(path)
    with pytest.raises(UserError, match=rf"weights.pth cannot be used: {words}.*save its state dict with torch.save"):
        load_weights(path)
    assert main(["--model_path", path.name]) == 1
    assert f"--model_path weights.pth cannot be used: {words}" in capsys.readouterr().err
    assert not (workplace / "proof").exists()


def test_a_damaged_file_without_checksums_is_a_sentence_whatever_torch_raises(tmp_path: Path) -> None:
    """The old pickle format protects nothing: struct.error, IndexError, AssertionError and more came out of it."""
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for length in range(10, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cannot be read by torch|could run code"):
            load_weights(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, "found the keys none"),
        ({"epoch": 3, "lr": 0.1}, "found the keys epoch, lr"),
        ({"model_state_dict": {}}, "found the keys model_state_dict"),
        ({0: torch.zeros(2)}, "found the keys 0"),
        ({"weight": torch.zeros(2), "epoch": 3}, "found the keys weight, epoch"),
        ([torch.zeros(2)], "holds a list, not a checkpoint or state dict"),
        (torch.zeros(2), "holds a Tensor, not a checkpoint or state dict"),
    ],
    ids=["nothing", "no tensors", "empty", "nameless", "mixed", "a list", "a tensor"],
)
def test_a_file_without_weights_says_what_it_holds(tmp_path: Path, content: object, named: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=named):
        load_weights(path)


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        (
            SmallDetector(width=6),
            r"7 layers of another size \(front_end.feature_projection.weight is \(6, 2\) there and \(4, 2\) here, "
            r".*\.\.\.\)\. Most likely --ssl_model is not the front-end",
        ),
        (
            SmallDetector(projection=True),
            r"2 unknown \(back_end.projection.weight, back_end.projection.bias\)\. Most likely --use_contrastive",
        ),
        (
            SmallDetector(layers=3),
            r"2 unknown \(front_end.layers.2.weight, .*\)\. Most likely --ssl_model or --model_type",
        ),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)),
            r"8 missing \(.*\.\.\.\); 6 unknown \(0.weight, .*\)\. Most likely the file is of another --model_type, "
            "or of another program",
        ),
    ],
    ids=["another width", "with a projection head", "one layer more", "another program"],
)
def test_weights_that_do_not_fit_list_the_layers_and_the_likely_flag(theirs: nn.Module, named: str) -> None:
    detector = SmallDetector()
    before = copy.deepcopy(detector.state_dict())
    with pytest.raises(UserError, match=rf"weights.pth does not fit this detector: {named}"):
        load_into(detector, Weights(Path("weights.pth"), theirs.state_dict(), {}))
    assert differences(dict(detector.state_dict()), dict(before)) == []


def test_a_missing_projection_head_points_at_its_flag() -> None:
    detector = SmallDetector(projection=True)
    with pytest.raises(UserError, match=r"2 missing .*--use_contrastive differs"):
        load_into(detector, Weights(Path("weights.pth"), SmallDetector().state_dict(), {}))


def test_weights_that_fit_are_copied_whole() -> None:
    source, target = SmallDetector(), SmallDetector()
    load_into(target, Weights(Path("weights.pth"), source.state_dict(), {}))
    assert differences(dict(target.state_dict()), dict(source.state_dict())) == []


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (
            {n: t for n, t in WHOLE.items() if n.startswith("back_end.")},
            r"6 missing .* comes from a run with --freeze_ssl",
        ),
        (
            {n: t for n, t in WHOLE.items() if n.startswith("front_end.")},
            "2 missing .* holds a front-end and no detector",
        ),
        ({"encoder.layers.0.weight": torch.ones(2)}, "it is a pretrained front-end and no detector: .* --ssl_model"),
        ({"wav2vec2.encoder.layers.0.weight": torch.ones(2)}, "it is a pretrained front-end and no detector"),
        (behind("module.") | {"step": torch.ones(1)}, r"8 missing .*; 9 unknown \(module.front_end"),
    ],
    ids=["without its frozen part", "a front-end", "wav2vec2", "wav2vec2 with a head", "a prefix that not all have"],
)
def test_a_file_that_is_something_else_is_called_what_it_is(theirs: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_into(SmallDetector(), Weights(Path("weights.pth"), theirs, {}))


def test_a_prefix_stays_where_the_names_fit_with_it() -> None:
    """Every name of this network begins with `net.` itself."""
    wrapped = nn.ModuleDict({"net": SmallDetector()})
    assert load_into(wrapped, Weights(Path("weights.pth"), behind("net."), {})) == ""
    assert load_into(wrapped, Weights(Path("weights.pth"), behind("module.net."), {})) == "module."


def _sparse(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_sparse()


@pytest.mark.parametrize(
    "made_odd",
    [_sparse, lambda tensor: tensor.to("meta"), lambda tensor: tensor.to(torch.complex64)],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_that_cannot_be_copied_whole_are_named(made_odd: Callable[[torch.Tensor], torch.Tensor]) -> None:
    detector = SmallDetector()
    odd = {name: made_odd(part) if part.dim() == 2 else part for name, part in detector.state_dict().items()}
    with pytest.raises(UserError, match=r"sparse, complex or without values \(front_end.*Save them as dense"):
        load_into(detector, Weights(Path("odd.pth"), odd, {}))


def test_a_state_dict_with_something_else_in_it_is_refused_by_that_name(tmp_path: Path) -> None:
    torch.save({"model": {**SmallDetector().state_dict(), "epoch": 1}}, tmp_path / "mixed.pth")
    with pytest.raises(UserError, match="`model` holds tensors and also epoch, which is none"):
        load_weights(tmp_path / "mixed.pth")
