"""What is killed: commands in turn, each repeated until it has ended, which together use every feature that writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

COMPACT = ("--ssl_model", "compact", "--batch_size", "4", "--lr", "1e-3", "--seed", "7")
EVERY_STEP = ("--save_interval", "1")
CURVES = ("--wandb", "--wandb_mode", "offline") if find_spec("wandb") else ()
CONTRASTIVE = ("--use_contrastive", "--algo", "5", "--crop", "random")
FIGURES = ("--visualize_attention", "--viz_samples", "1", "--viz_frequency", "2")
RUN, FIRST_EPOCH = "{run}", "{run}/checkpoint_epoch_1_first.pth"


@dataclass(frozen=True)
class Command:
    """Words that a user types, and what is added to them once this command has begun to train and was killed.

    `{run}` in a word is the folder of the first run. A command with `keeps` must leave all that was there before it
    somewhere: it moves an earlier run aside, begins another version or takes checkpoints from another run.
    """

    words: tuple[str, ...]
    until_it_trains: tuple[str, ...] = ()
    once_it_trains: tuple[str, ...] = ()
    keeps: bool = False

    @property
    def trains(self) -> bool:
        """Whether it may read audio with any number of processes and save in two ways, to the same bits."""
        return not {"--eval", "--export"} & set(self.words)

    def at(self, folder: Path, database: Path, has_trained: bool) -> tuple[str, ...]:
        """Return the words to type in `folder`."""
        words = (*self.words, *(self.once_it_trains if has_trained else self.until_it_trains))
        first = next(_runs(folder), folder).relative_to(folder)
        return (*(word.replace(RUN, str(first)) for word in words), "--database_path", str(database))


@dataclass(frozen=True)
class Scenario:
    """Commands in turn, in one folder."""

    name: str
    commands: tuple[Command, ...]


def _runs(folder: Path) -> Iterator[Path]:
    """Yield run folders, the first run first."""
    yield from sorted((folder / "models").glob("*_first"))
    yield from sorted((folder / "outputs").glob("*/checkpoints/version_0"))


def _trains(*words: str) -> Command:
    return Command((*COMPACT, "--comment", "first", *words, "--auto_resume"))


def _exports(form: str, file: str) -> Command:
    return Command(("--export", form, "--model_path", RUN, "--load_checkpoint_type", "best", "--export_path", file))


def _versions(*words: str) -> Command:
    return Command((*COMPACT, *words, "--experiment", "soak"), once_it_trains=("--auto_resume",), keeps=True)


SCENARIOS = (
    Scenario(
        "steps, names, compression",
        (
            _trains(
                *(*EVERY_STEP, "--val_interval", "1", "--keep_last_n", "2", "--compress_after", "1", *CONTRASTIVE),
                *("--accumulate_steps", "2", "--num_epochs", "4", *CURVES),
                *("--checkpoint_name", "step_{step:08d}-val_loss_{val_loss:.4f}.ckpt"),
            ),
        ),
    ),
    Scenario(
        "best only, SWA, evaluated",
        (
            _trains(
                *(*EVERY_STEP, "--val_interval", "2", "--save_best_only", "--swa", "--num_epochs", "4"),
                *("--scheduler", "cosine", "--warmup_steps", "2", "--use_contrastive", "--contrastive", "infonce"),
            ),
            Command(("--eval", "--model_path", RUN, "--swa", "--eval_output", "scores.txt")),
        ),
    ),
    Scenario(
        "frozen, exported",
        (
            _trains(*EVERY_STEP, "--keep_last_n", "1", "--freeze_ssl", "--num_epochs", "4", *CURVES),
            _exports("checkpoint", "whole.pth"),
            _exports("safetensors", "detector.safetensors"),
            _exports("torchscript", "detector.ts"),
            *((_exports("onnx", "detector.onnx"),) if find_spec("onnx") and find_spec("onnxruntime") else ()),
        ),
    ),
    Scenario(
        "experiment, two versions",
        (
            _versions(*EVERY_STEP, "--num_epochs", "3", "--save_freq", "2", "--milestones", "1", *CURVES),
            _versions(*EVERY_STEP, "--num_epochs", "2", "--loss", "focal", "--patience", "3"),
        ),
    ),
    Scenario(
        "moved aside",
        (
            _trains(*EVERY_STEP, "--keep_last_n", "2", "--num_epochs", "2", *CURVES),
            Command(
                (*COMPACT, "--comment", "first", *EVERY_STEP, "--keep_last_n", "2", "--num_epochs", "2", *CURVES),
                until_it_trains=("--fresh_start",),
                once_it_trains=("--auto_resume",),
                keeps=True,
            ),
        ),
    ),
    Scenario(
        "brought along",
        (
            _trains(*EVERY_STEP, "--keep_last_n", "2", "--num_epochs", "2", "--freeze_ssl"),
            Command(
                (*COMPACT, "--comment", "second", *EVERY_STEP, "--num_epochs", "3", "--freeze_ssl"),
                until_it_trains=("--resume", "--model_path", FIRST_EPOCH),
                once_it_trains=("--auto_resume",),
                keeps=True,
            ),
        ),
    ),
    Scenario("heatmaps", (_trains(*EVERY_STEP, "--keep_last_n", "1", "--num_epochs", "2", *FIGURES, *CURVES),)),
    Scenario(
        "epochs only, synced",
        (
            _trains(
                *("--save_interval", "0", "--num_epochs", "5", "--save_freq", "2", "--milestones", "1"),
                *("--checkpoint_name", "checkpoint_epoch_{epoch:03d}.pth", "--balanced_batches", "--sync_save"),
            ),
        ),
    ),
)
_TOY = ("--model_type", "echo", "--batch_size", "4", "--lr", "1e-3", *EVERY_STEP)


def _repeats(*words: str) -> Command:
    return Command((*_TOY, "--comment", "first", *words, "--auto_resume"))


def _next_version(*words: str) -> Command:
    return Command((*_TOY, *words, "--experiment", "soak"), once_it_trains=("--auto_resume",), keeps=True)


_ONE_LEFT = ("--keep_last_n", "1", "--num_epochs", "2")
TWO_NETWORKS = (
    Scenario("networks, retention", (_repeats(*_ONE_LEFT),)),
    Scenario(
        "networks, moved aside",
        (
            _repeats(*_ONE_LEFT),
            Command(
                (*_TOY, "--comment", "first", *_ONE_LEFT),
                until_it_trains=("--fresh_start",),
                once_it_trains=("--auto_resume",),
                keeps=True,
            ),
        ),
    ),
    Scenario(
        "networks, two versions",
        (_next_version("--num_epochs", "2"), _next_version("--num_epochs", "1", "--seed", "9")),
    ),
    Scenario(
        "networks, brought along",
        (
            _repeats("--keep_last_n", "2", "--num_epochs", "2"),
            Command(
                (*_TOY, "--comment", "second", "--num_epochs", "3"),
                until_it_trains=("--resume", "--model_path", FIRST_EPOCH),
                once_it_trains=("--auto_resume",),
                keeps=True,
            ),
        ),
    ),
    Scenario("networks, best only", (_repeats("--save_best_only", "--num_epochs", "3"),)),
    Scenario(
        "networks, compression",
        (_repeats("--compress_after", "1", "--keep_last_n", "2", "--val_interval", "1", "--num_epochs", "3"),),
    ),
)
_VOCODER = ("--model_type", "hifigan", "--vocoder_size", "small", "--num_epochs", "2", *EVERY_STEP)


def _vocodes(*words: str) -> Command:
    return Command((*_VOCODER, "--comment", "first", *words, "--auto_resume"))


VOCODER = (
    Scenario("vocoder, retention", (_vocodes("--batch_size", "2", "--keep_last_n", "2"),)),
    Scenario(
        "vocoder, several batches",
        (_vocodes("--batch_size", "1", "--accumulate_steps", "2", "--compress_after", "1", "--val_interval", "1"),),
    ),
    Scenario(
        "vocoder, evaluated",
        (
            _vocodes("--batch_size", "2", "--save_best_only"),
            Command(("--eval", "--model_path", RUN, "--eval_output", "copies.tsv")),
            _exports("safetensors", "generator.safetensors"),
        ),
    ),
)
