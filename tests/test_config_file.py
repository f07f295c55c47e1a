"""config.yaml beside the checkpoints: what it holds, when it is written, and that it reproduces the run to the bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from main import main
from tests.asking import asked_training
from tests.comparing import assert_same_training
from tests.conftest import SMALL_RUN
from training.runs.config_file import RunConfig, run_config, settings_text, write_config
from training.settings.options import Options
from training.settings.yaml_settings import read_settings_file

ODD = Options(
    database_path='a "b"\\c: # d\n\u00e9\U0001f600',
    num_examples=None,
    ssl_model="compact",
    lr=1e-6,
    weight_decay=0.0,
    contrastive_weight=1e22,
    milestones=(10, 25),
    val_interval=500,
    checkpoint_name="step_{step:08d}-val_loss_{val_loss:.4f}.ckpt",
    comment="1e-3",
    experiment="yes",
    use_contrastive=True,
)


@pytest.fixture(autouse=True)
def in_the_workplace(workplace: Path) -> None:
    """Run in an empty folder."""


def config_of(*typed: str, **effective: Any) -> RunConfig:
    command = asked_training(*typed)
    return run_config(command, command.options.replaced(**effective))


@pytest.mark.parametrize("options", [Options(), ODD], ids=["defaults", "odd values"])
def test_every_setting_comes_back_from_the_file(options: Options) -> None:
    Path("config.yaml").write_text(settings_text(options, "Written by a test"), encoding="utf-8")
    read = read_settings_file(Path("config.yaml"))
    assert Options(**read.settings) == options
    assert set(read.settings) == set(options.as_dict())


def test_a_small_number_is_a_number_to_any_reader_of_yaml() -> None:
    """YAML 1.1 reads 1e-06 as text."""
    text = settings_text(Options(), "Written by a test")
    assert "\nlr: 1.0e-06\n" in text
    assert yaml.safe_load(text)["lr"] == 1e-6


def test_a_generated_file_says_which_command_wrote_it_and_holds_no_checkpoint_flag() -> None:
    text = config_of("--auto_resume", "--comment", "my run", "--model_path", "a.pth").content.decode()
    assert text.startswith("# Written by: python main.py --auto_resume --comment 'my run' --model_path a.pth\n")
    assert set(yaml.safe_load(text)) == set(Options().as_dict())
    assert text.index("\n# data\n") < text.index("\n# training\n") < text.index("\n# saving\n")


def test_a_line_break_in_a_flag_stays_in_the_comment() -> None:
    text = config_of("--database_path", "a\nlr: 5").content.decode()
    assert yaml.safe_load(text)["lr"] == 1e-6


FILE = b"# mine\r\nlr:   1e-3 # high\n"
WHICH = [
    ("nothing but the file", ["--config", "mine.yaml"], {}, True),
    ("the file and a checkpoint flag", ["--config", "mine.yaml", "--auto_resume"], {}, True),
    ("the file and a path", ["--config", "mine.yaml", "--fresh_start", "--model_path", "a.pth"], {}, True),
    ("a flag beside the file", ["--config", "mine.yaml", "--num_workers", "0"], {}, False),
    ("a setting of the checkpoint", ["--config", "mine.yaml", "--auto_resume"], {"seed": 7}, False),
    ("no file", ["--lr", "1e-3"], {}, False),
]


@pytest.mark.parametrize(("why", "typed", "effective", "copied"), WHICH, ids=[row[0] for row in WHICH])
def test_it_is_a_copy_where_the_file_alone_gives_the_settings(
    why: str, typed: list[str], effective: dict[str, Any], copied: bool
) -> None:
    Path("mine.yaml").write_bytes(FILE)
    config = config_of(*typed, **effective)
    assert (config.content == FILE, config.copy_of) == (copied, Path("mine.yaml") if copied else None), why


def test_a_file_that_resumes_is_not_copied() -> None:
    """Training again from a copy would resume again, and not begin."""
    Path("mine.yaml").write_text("lr: 1e-3\ncheckpoint: {resume_from: a.pth}\n")
    config = config_of("--config", "mine.yaml")
    assert config.copy_of is None
    assert "resume_from" not in yaml.safe_load(config.content)


@pytest.mark.parametrize(
    ("there", "kept"),
    [
        (None, False),
        ("lr: 1e-6\n# my notes", True),
        ("lr: 1e-5", False),
        ("lr: [", False),
        ("warp_drive: 1", False),
    ],
)
def test_a_file_that_gives_the_same_settings_is_kept(there: str | None, kept: bool) -> None:
    path = Path("config.yaml")
    if there is not None:
        path.write_text(there)
    write_config(path, RunConfig(b"new"), Options())
    assert path.read_text() == (there if kept else "new")


# Whole runs

CONFIG = """\
# a small run
ssl_model: compact
batch_size: 4
lr: 1e-3
num_workers: 0
num_epochs: 2
warmup_steps: 2
checkpoint:
  save_interval: 0
wandb:
  enabled: false
"""


def trained_in(folder: str, *arguments: object, code: int = 0) -> Path:
    """Run the program inside a folder of its own and return the run folder."""
    here = Path.cwd()
    Path(folder).mkdir(exist_ok=True)
    os.chdir(folder)
    try:
        assert main([str(argument) for argument in arguments]) == code
    finally:
        os.chdir(here)
    (found,) = Path(folder, "models").iterdir()
    return found


def test_training_again_from_a_copied_config_gives_the_same_bits(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path("mine.yaml").absolute()
    mine.write_text(CONFIG + f"database_path: {corpus}\n")
    first = trained_in("first", "--config", mine)
    said = capsys.readouterr().out
    assert f"  config:      models/{first.name}/config.yaml, a copy of {mine}\n" in said
    assert (first / "config.yaml").read_bytes() == mine.read_bytes()
    again = trained_in("again", "--config", (first / "config.yaml").absolute())
    assert_same_training(first, again)
    assert (again / "config.yaml").read_bytes() == mine.read_bytes()


def test_training_again_from_a_generated_config_gives_the_same_bits(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*SMALL_RUN, "--weight_decay", "1e-6", "--seed", "7", "--crop", "random", "--num_epochs", "2"]
    first = trained_in("first", *flags, "--fresh_start", "--database_path", corpus)
    assert f"  config:      models/{first.name}/config.yaml\n" in capsys.readouterr().out
    again = trained_in("again", "--config", (first / "config.yaml").absolute())
    assert_same_training(first, again)
    assert (again / "config.yaml").read_bytes() == (first / "config.yaml").read_bytes()


def test_training_again_from_the_runs_own_config_moves_the_run_aside_with_its_config(corpus: Path) -> None:
    """The file named by --config is itself moved before it is copied."""
    flags = [*SMALL_RUN, "--num_epochs", "2", "--database_path", corpus]
    folder = trained_in(".", *flags)
    before = (folder / "config.yaml").read_bytes()
    trained_in(".", "--config", folder / "config.yaml")
    assert (folder / "config.yaml").read_bytes() == before
    assert (folder / "version_1" / "config.yaml").read_bytes() == before
    assert_same_training(folder / "version_1", folder)


def test_a_run_that_goes_on_with_other_settings_has_them_in_its_config(corpus: Path) -> None:
    flags = [*SMALL_RUN, "--num_epochs", "2", "--database_path", corpus]
    folder = trained_in(".", *flags)
    config = folder / "config.yaml"
    started = config.read_bytes()
    (folder / "checkpoint_epoch_2.pth").unlink()
    for path in (*folder.glob("*eer.pth"), folder / "last_checkpoint.pth"):
        path.unlink()
    trained_in(".", *flags, "--auto_resume")
    assert config.read_bytes() == started
    (folder / "checkpoint_epoch_2.pth").unlink()
    for path in (*folder.glob("*eer.pth"), folder / "last_checkpoint.pth"):
        path.unlink()
    trained_in(".", *flags, "--auto_resume", "--patience", "50")
    assert read_settings_file(config).settings["patience"] == 50
    text = config.read_text()
    assert text.startswith("# Written by: python main.py --ssl_model compact ")
    assert "this file reproduces it" in text, "with that patience the first epoch would have been the same"


def test_a_config_says_why_it_does_not_reproduce_a_run_whose_settings_changed_in_the_middle(corpus: Path) -> None:
    """It holds the last session's values alone, and it said that it reproduces the run."""
    folder = trained_in(".", *SMALL_RUN, "--num_epochs", "2", "--database_path", corpus)
    first = folder / "checkpoint_epoch_1.pth"
    assert main(["--resume", "--model_path", str(first), "--weight_decay", "0.5"]) == 0
    config = folder.with_name(f"{folder.name}_weight_decay0.5") / "config.yaml"
    assert config.read_text().startswith(
        "# The settings at the end of this run: training again with --config and this file does not reproduce it.\n"
        "#   until step 3 --weight_decay was 0.0001, from there on 0.5.\n"
        "# To repeat the run: begin with the earlier values, and go on from step 3 by --resume with the later ones.\n"
        "# Written by: python main.py --resume "
    )
    assert "this file reproduces it" not in config.read_text()
    assert read_settings_file(config).settings["weight_decay"] == 0.5
    before = config.read_bytes()
    (config.parent / "checkpoint_epoch_2.pth").unlink()
    for path in (*config.parent.glob("*eer.pth"), config.parent / "last_checkpoint.pth"):
        path.unlink()
    assert main(["--resume", "--model_path", str(config.parent / first.name), "--num_workers", "0"]) == 0
    assert config.read_bytes() == before, "the past is the same"


def test_what_is_moved_aside_on_resume_takes_its_config_along(corpus: Path) -> None:
    flags = [*SMALL_RUN, "--num_epochs", "2", "--database_path", corpus]
    folder = trained_in(".", *flags)
    started = (folder / "config.yaml").read_bytes()
    trained_in(".", "--resume", "--model_path", folder / "checkpoint_epoch_1.pth", "--patience", "50")
    assert (folder / "version_1" / "config.yaml").read_bytes() == started
    assert read_settings_file(folder / "config.yaml").settings["patience"] == 50


def test_resume_from_in_a_file_continues_that_checkpoint(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = Path("mine.yaml")
    mine.write_text(CONFIG + f"database_path: {corpus}\n")
    folder = trained_in(".", "--config", mine)
    resumed = folder / "checkpoint_epoch_1.pth"
    mine.write_text(mine.read_text().replace("checkpoint:\n", f"checkpoint:\n  resume_from: {resumed}\n"))
    capsys.readouterr()
    trained_in(".", "--config", mine)
    said = capsys.readouterr().out
    assert f"Plan: resume {resumed} at epoch 2\n" in said
    assert f"  why:         --resume --model_path {resumed}, as checkpoint.resume_from in {mine} says\n" in said


def test_where_nothing_is_trained_no_config_is_written(corpus: Path) -> None:
    flags = [*SMALL_RUN, "--num_epochs", "2", "--database_path", corpus]
    folder = trained_in(".", *flags)
    (folder / "config.yaml").unlink()
    trained_in(".", *flags, "--auto_resume")
    assert not (folder / "config.yaml").exists()
