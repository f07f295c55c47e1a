"""--inspect_checkpoint tells what one file holds, without torch and without reading it, and what is wrong with it."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from main import main
from tests.conftest import SMALL_RUN
from tests.records import cut, metrics, record, write_foreign_weights
from tests.test_validation import MODEL, write_whole
from training.checkpoints.file_format import BadCheckpointFileError
from training.checkpoints.tensor_table import read_tensor_table
from training.runs.directory import RunDirectory
from training.settings.options import Options
from utils.errors import UserError

RUN = RunDirectory.of(Options())
ADAM = {"state": {0: {"step": torch.tensor(4.0), "exp_avg": torch.zeros(64)}}, "param_groups": [{"lr": 1e-6}]}
pytestmark = pytest.mark.usefixtures("workplace")


def write_epoch(number: int, **changes: Any) -> Path:
    made = record("", number, best=metrics(2, val_eer=1.5))
    return write_whole(RUN.epoch_checkpoint(number), made, optimizer_state_dict=ADAM, **changes)


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["--inspect_checkpoint", *map(str, arguments)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, str]:
    assert main(["--inspect_checkpoint", *map(str, arguments)]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    return output.out, output.err


def test_epoch_step_metrics_options_and_metadata_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub("  +", "  ", inspected(capsys, write_epoch(3)))  # however wide its columns are
    for line in (
        "Kind: the whole state after an epoch",
        "Epoch: 3",
        "Step: 30",
        "Learning rate: 1e-06",
        "  val_eer  5  1.5",
        "  group_size  3",
        "  device  cpu",
    ):
        assert f"\n{line}\n" in text


def test_a_step_checkpoint_tells_where_in_its_epoch_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    made = record("", 0, batches_done=3)
    text = inspected(capsys, write_whole(RUN.folder / "checkpoint_step_3.pth", made))
    assert "\nStep: 3 (3 of 10 batches of epoch 1)\n" in text
    assert "\nMetrics\n   no epoch is complete yet\n" in text


def test_weights_are_listed_by_module_and_an_optimizer_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = inspected(capsys, write_epoch(1))
    assert text[text.index("Tensors:") : text.index("Whether")] == (
        "Tensors: 4, 528 bytes\n"
        "   model_state_dict: 2 tensors, 67 values, 268 bytes\n"
        "      layer\n"
        "         weight  (64,)                float32    256 bytes\n"
        "         bias    (3,)                 float32    12 bytes\n"
        "   optimizer_state_dict: 2 tensors, 65 values, 260 bytes\n"
        "Total parameters: 67 (state dicts, with their buffers)\n"
        "\n"
    )


@pytest.mark.parametrize(("which", "epoch"), [([], 3), (["--load_checkpoint_type", "best"], 2)])
def test_of_a_run_folder_the_last_or_the_best_checkpoint_is_inspected(
    which: list[str], epoch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_epoch(2)
    write_epoch(3)
    os.link(RUN.epoch_checkpoint(2), RUN.best_checkpoint)
    assert f"\nEpoch: {epoch}\n" in inspected(capsys, RUN.folder, *which)


def test_what_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--inspect_checkpoint nowhere.pth does not exist" in refused(capsys, "nowhere.pth")[1]
    os.mkfifo("pipe.pth")
    assert "--inspect_checkpoint pipe.pth is no regular file" in refused(capsys, "pipe.pth")[1]
    write_foreign_weights(Path("folder/pretrained.pth"))
    assert "holds no last checkpoint: found pretrained.pth" in refused(capsys, "folder")[1]


def test_weights_of_another_program_are_told_with_the_values_beside_them(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": MODEL, "epoch": 12, "val_eer": 0.25}, "theirs.pth")
    text = inspected(capsys, "theirs.pth")
    assert "\nKind: a file of another program\n" in text
    assert "\nValues\n   epoch    12\n   val_eer  0.25\n" in text
    assert "\n   state_dict: 2 tensors, 67 values, 268 bytes\n" in text


def test_a_cut_file_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_epoch(1)
    cut(path)
    output, error = refused(capsys, path)
    assert f"error: {path} cannot be used: it was cut short" in error
    assert "Kind: cannot be read" in output


class _Command:
    def __reduce__(self) -> Any:
        return os.system, ("touch made",)


def test_a_file_that_would_run_a_command_is_told_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"net": MODEL, "x": _Command()}, "theirs.pth")
    output, error = refused(capsys, "theirs.pth")
    assert f"it refers to {os.system.__module__}.system): loading it could run code, so that is refused" in error
    assert "net: 2 tensors" in output
    assert not Path("made").exists()


def test_names_that_would_act_on_the_terminal_are_made_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a\x1b[2J.weight": torch.ones(1), "b\nTotal parameters: 0": torch.ones(1)}, "theirs.pth")
    text = inspected(capsys, "theirs.pth")
    assert "\x1b" not in text and "\nTotal parameters: 0" not in text


def test_json_holds_everything_that_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_epoch(3)
    document = json.loads(inspected(capsys, path, "--json"))
    assert list(document) == [
        *("path", "bytes", "problems", "record", "keys", "values"),
        *("tensors", "total_parameters", "total_tensor_bytes"),
    ]
    assert (document["path"], document["bytes"], document["problems"]) == (str(path), path.stat().st_size, [])
    assert (document["record"]["epoch"], document["record"]["best"]["val_eer"]) == (3, 1.5)
    assert document["record"]["options"]["group_size"] == 3
    assert (document["total_parameters"], document["total_tensor_bytes"]) == (67, 528)
    assert document["tensors"][0] == {
        "key": "model_state_dict",
        "name": "layer.weight",
        "shape": [64],
        "dtype": "float32",
        "bytes": 256,
        "storage": "0",
    }


def test_json_of_a_damaged_file_names_the_problem_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_epoch(3)
    cut(path)
    document = json.loads(refused(capsys, path, "--json")[0])
    assert "cut short" in document["problems"][0]
    assert (document["record"], document["tensors"]) == (None, None)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"net": MODEL, "loss": float("nan")}, "theirs.pth")
    assert json.loads(inspected(capsys, "theirs.pth", "--json"), parse_constant=pytest.fail)["values"] == {
        "loss": "nan"
    }


def test_a_real_run_is_told_with_the_number_of_parameters_that_torch_counts(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "1"]) == 0
    capsys.readouterr()
    path = next(Path("models").glob("*/checkpoint_epoch_1.pth"))
    document = json.loads(inspected(capsys, path, "--json"))
    loaded = torch.load(path, weights_only=True)
    assert document["keys"] == list(loaded)
    model = {tensor["name"]: tensor for tensor in document["tensors"] if tensor["key"] == "model_state_dict"}
    assert {name: tuple(tensor["shape"]) for name, tensor in model.items()} == {
        name: tuple(tensor.shape) for name, tensor in loaded["model_state_dict"].items()
    }
    assert document["total_parameters"] == sum(tensor.numel() for tensor in loaded["model_state_dict"].values())
    assert main(["--validate_checkpoints", str(path.parent)]) == 0


def test_no_damage_ends_in_a_traceback(tmp_path: Path) -> None:
    path = write_epoch(1)
    data, chance = path.read_bytes(), random.Random(5)
    for _ in range(300):
        start = chance.randrange(len(data))
        other = chance.randbytes(chance.choice([1, 4, 64]))
        path.write_bytes((data[:start] + other + data[start + len(other) :])[: chance.choice([len(data), start + 70])])
        try:
            assert main(["--inspect_checkpoint", str(path)]) in (0, 1)
            read_tensor_table(path)
        except (UserError, BadCheckpointFileError):
            pass
