"""What a settings file may say, in flat lines and in sections, and the words for what it may not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.asking import asked_training
from tests.conftest import REPOSITORY
from training.settings.command_line import read_command
from training.settings.options import SETTINGS, Options
from training.settings.requests import AutoResume, ListCheckpoints, NewRun, Request, Resume, Train, ValidateCheckpoints
from training.settings.yaml_settings import read_settings_file
from utils.errors import EXIT_USAGE, UserError

# The two examples of the guide to checkpoints of Miipher-2's adapter and vocoder training, comments left out.
ADAPTER = """\
# Checkpoint configuration
checkpoint:
  save_interval: 1000      # every 1k steps
  resume_from: null
  keep_last_n: 5
  save_wandb_metadata: true

# Wandb logging configuration
wandb:
  enabled: true
  project: "miipher-2-adapter"
  entity: null
  name: null
  tags: ["adapter", "training"]
  notes: "Parallel Adapter training for Miipher-2"
  log_model: false
"""
VOCODER = """\
checkpoint:
  save_interval: 1000
  resume_from: null
  keep_last_n: 5
  save_wandb_metadata: true

wandb:
  enabled: true
  project: "miipher-2-hifigan"
  entity: null
  name: null
  tags: ["hifigan", "vocoder", "finetune"]
  notes: "HiFi-GAN fine-tuning for Miipher-2"
  log_model: true
  log_audio: true
"""


@pytest.fixture(autouse=True)
def in_the_workplace(workplace: Path) -> None:
    """Run in an empty folder."""


def command(text: str, *typed: str) -> Train:
    Path("settings.yaml").write_text(text, encoding="utf-8")
    return asked_training("--config", "settings.yaml", *typed)


def refusal(text: str) -> str:
    with pytest.raises(UserError) as refused:
        command(text)
    assert refused.value.exit_code == EXIT_USAGE
    assert str(refused.value).startswith("--config settings.yaml")
    return str(refused.value)


@pytest.mark.parametrize("text", [ADAPTER, VOCODER], ids=["adapter", "vocoder"])
def test_a_documented_example_is_read(text: str) -> None:
    read = command(text)
    expected = yaml.safe_load(text)["wandb"]
    assert read.options == Options(
        save_interval=1000,
        keep_last_n=5,
        wandb=True,
        wandb_project=expected["project"],
        wandb_tags=tuple(expected["tags"]),
        wandb_notes=expected["notes"],
        log_model=expected["log_model"],
        log_audio=expected.get("log_audio", False),
    )
    assert isinstance(read, NewRun) and read.model_path is None


@pytest.mark.parametrize(
    ("text", "wandb", "saved"),
    [
        ("wandb: true", True, True),
        ("wandb: {enabled: true, mode: offline}\ncheckpoint: {save_wandb_metadata: false}", True, False),
        ("wandb: {enabled: false, project: a, save_wandb_metadata: false}", False, False),
    ],
)
def test_wandb_is_a_flag_or_a_section(text: str, wandb: bool, saved: bool) -> None:
    read = command(text)
    assert (read.options.wandb, read.options.save_wandb_metadata) == (wandb, saved)


def test_the_checkpoint_section_holds_every_setting_of_saving() -> None:
    values = {
        "save_interval": ("500", 500),
        "val_interval": ("250", 250),
        "save_freq": ("5", 5),
        "milestones": ("[10, 25]", (10, 25)),
        "keep_last_n": ("null", None),
        "save_best_only": ("false", False),
        "checkpoint_name": ("'checkpoint_{step}.pt'", "checkpoint_{step}.pt"),
        "compress_after": ("3", 3),
        "sync_save": ("true", True),
        "max_lost": ("5m", 300.0),
        "mirror": ("/mnt/disk", "/mnt/disk"),
    }
    assert set(values) == {name for name, declared in SETTINGS.items() if declared.group == "saving"}
    read = command("checkpoint:\n" + "".join(f"  {name}: {text}\n" for name, (text, _) in values.items()))
    assert {name: getattr(read.options, name) for name in values} == {
        name: value for name, (_, value) in values.items()
    }


def test_flat_lines_and_sections_stand_in_one_file_and_flags_win() -> None:
    read = command("lr: 1e-3\nsave_freq: 2\ncheckpoint:\n  keep_last_n: 3\n", "--keep_last_n", "4")
    assert read.options == Options(lr=1e-3, save_freq=2, keep_last_n=4)
    assert read.given == {"lr", "save_freq", "keep_last_n"}
    assert read.typed == {"keep_last_n"}


@pytest.mark.parametrize("text", ["checkpoint:\nlr: 0.1", "wandb:\nlr: 0.1", "wandb: {}\nlr: 0.1"])
def test_a_section_may_be_empty(text: str) -> None:
    assert command(text).options == Options(lr=0.1)


UNKNOWN = [
    ("checkpoint: {keep_last: 5}", "has an unknown setting `checkpoint.keep_last`: did you mean `keep_last_n`?"),
    ("checkpoint: {warp: 5}", "unknown setting `checkpoint.warp`: known are checkpoint_name, compress_after, "),
    ("checkpoint: {lr: 5}", "has `checkpoint.lr`: lr does not belong there, write it on a line of its own"),
    ("checkpoint: {enabled: true}", "unknown setting `checkpoint.enabled`"),
    ("wandb: {projekt: a}", "unknown setting `wandb.projekt`: did you mean `project`?"),
    ("wandb: {save_freq: 1}", "has `wandb.save_freq`: save_freq does not belong there"),
    ("checkpoints: {keep_last_n: 5}", "has an unknown section `checkpoints`: did you mean `checkpoint`?"),
    ("optim: {lr: 5}", "has an unknown section `optim`: known are checkpoint, wandb"),
    ("resume_from: a.pth", "has an unknown setting `resume_from`: it belongs under `checkpoint:`"),
    ("project: a", "has an unknown setting `project`: it belongs under `wandb:`"),
    ("num_epoch: 5", "has an unknown setting `num_epoch`: did you mean `num_epochs`?"),
    ("warp_drive: 5", "has an unknown setting `warp_drive`: python main.py --help lists them"),
    ("lr: {value: 1}", "lr must be a number, found {'value': 1}"),
]


@pytest.mark.parametrize(("text", "words"), UNKNOWN)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(text: str, words: str) -> None:
    assert words in refusal(text)


TWICE = [
    ("lr: 1\nseed: 3\nlr: 2", "gives lr twice, in lines 1 and 3: keep one of them"),
    ('lr: 1\n"lr": 1', "gives lr twice, in lines 1 and 2"),
    ("checkpoint:\n  save_freq: 1\n  save_freq: 2", "gives checkpoint.save_freq twice, in lines 2 and 3"),
    ("wandb: {name: a, name: b}", "gives wandb.name twice, in lines 1 and 1"),
    ("wandb: {name: a}\nwandb_name: b", "gives wandb_name twice, on a line of its own and under wandb"),
    (
        "wandb: {save_wandb_metadata: true}\ncheckpoint: {save_wandb_metadata: true}",
        "gives save_wandb_metadata twice, under checkpoint and under wandb",
    ),
    ("checkpoint: {save_freq: 1}\ncheckpoint: {keep_last_n: 1}", "gives checkpoint twice, in lines 1 and 2"),
    ("save_freq: 1\ncheckpoint: {save_freq: 1}", "gives save_freq twice, on a line of its own and under checkpoint"),
]


@pytest.mark.parametrize(("text", "words"), TWICE)
def test_a_name_given_twice_is_refused(text: str, words: str) -> None:
    """YAML's reader keeps the last of two lines with one name, in silence."""
    assert words in refusal(text)


BAD_VALUES = [
    ("checkpoint: 5", "must hold `name: value` lines under checkpoint, found 5"),
    ("wandb: [a]", "must hold `name: value` lines under wandb, found ['a']"),
    ("checkpoint: {save_interval: 1k}", "checkpoint.save_interval must be a whole number, found '1k'"),
    ("checkpoint: {save_interval: null}", "checkpoint.save_interval must be a whole number, found None"),
    ("checkpoint: {milestones: null}", "checkpoint.milestones must be whole numbers, as [10, 25, 50], found None"),
    ("checkpoint: {milestones: 10}", "checkpoint.milestones must be whole numbers, as [10, 25, 50], found 10"),
    ("checkpoint: {save_wandb_metadata: 1}", "checkpoint.save_wandb_metadata must be true or false, found 1"),
    ("checkpoint: {resume_from: 5}", "checkpoint.resume_from must be text, found 5"),
    ("checkpoint: {resume_from: ''}", "has an empty checkpoint.resume_from: write a path, or null"),
    ("wandb: {enabled: 'no'}", "wandb.enabled must be true or false, found 'no'"),
    ("wandb: {tags: adapter}", "wandb.tags must be a list of words, as [adapter, training], found 'adapter'"),
    ("wandb: {tags: [1]}", "wandb.tags must be a list of words, as [adapter, training], found [1]"),
    ("wandb: {project: 5}", "wandb.project must be text, found 5"),
    ("wandb: {log_model: null}", "wandb.log_model must be true or false, found None"),
    ("wandb: {mode: of}", "has wandb.mode 'of': it must be one of online, offline, disabled"),
    ("wandb: {notes: 2024-13-45}", "is not valid YAML: month must be in 1..12"),
    ("lr: 1" + "0" * 400, "lr must be a number, found 1"),
    ("a: 1\n---\nb: 2", "is not valid YAML"),
    ("? [a]\n: 1", "is not valid YAML"),
    ("[" * 5000, "is not valid YAML"),
]


@pytest.mark.parametrize(("text", "words"), BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_a_bad_value_is_refused_naming_section_and_key(text: str, words: str) -> None:
    assert words in refusal(text)


# resume_from

RESUMES = "checkpoint:\n  resume_from: exp/checkpoint_5k.pt\n"
ROWS: list[tuple[list[str], type[Request], str | None]] = [
    ([], Resume, "exp/checkpoint_5k.pt"),
    (["--lr", "1"], Resume, "exp/checkpoint_5k.pt"),
    (["--auto_resume"], AutoResume, None),
    (["--fresh_start"], NewRun, None),
    (["--list_checkpoints"], ListCheckpoints, None),
    (["--model_path", "a.pth"], NewRun, "a.pth"),
    (["--resume", "--model_path", "a.pth"], Resume, "a.pth"),
    (["--validate_checkpoints"], ValidateCheckpoints, None),
]


@pytest.mark.parametrize(("typed", "kind", "model_path"), ROWS, ids=str)
def test_resume_from_resumes_unless_a_checkpoint_flag_or_a_path_was_typed(
    typed: list[str], kind: type[Request], model_path: str | None
) -> None:
    Path("settings.yaml").write_text(RESUMES, encoding="utf-8")
    read = read_command(["--config", "settings.yaml", *typed])
    paths = [value for value in vars(read).values() if isinstance(value, Path)]
    assert (type(read), paths) == (kind, [Path(model_path)] if model_path else [])


def test_the_file_is_kept_as_it_was_read() -> None:
    text = "# Größe\nlr: 1e-3\r\n"
    Path("settings.yaml").write_bytes(text.encode())
    read = read_settings_file(Path("settings.yaml"))
    assert (read.content, dict(read.settings), read.resume_from) == (text.encode(), {"lr": 1e-3}, None)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_files_in_configs_can_be_used(path: Path) -> None:
    assert asked_training("--config", path).given


def test_every_kind_of_setting_can_be_read() -> None:
    values: dict[str, Any] = {"seed": 7, "lr": 0.5, "track": "LA", "sync_save": True, "milestones": (3,)}
    assert command("seed: 7\nlr: 0.5\ntrack: LA\nsync_save: true\nmilestones: [3]").options == Options(**values)


BOMBS = {
    "aliases of aliases": "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefgh")),
    "lists in lists": "[" * 60_000,
    "mappings in mappings": "a: " + "{a: " * 3000,
    "many values": "milestones: [" + "1," * 30_000 + "]",
    "many lines": "".join(f"n{number}: 1\n" for number in range(5000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_take_for_ever_is_refused_before_it_is_built(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name])
    with pytest.raises(UserError, match=r"is not valid YAML: it has more than .* a file of settings needs few"):
        read_settings_file(path)


def test_a_file_larger_than_any_of_settings_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("#" * 70_000)
    with pytest.raises(UserError, match=r"cannot be read: it has more than 65\.5 kB"):
        read_settings_file(path)


def test_an_alias_or_two_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: &seed 7\nnum_epochs: *seed\n")
    assert read_settings_file(path).settings == {"seed": 7, "num_epochs": 7}
