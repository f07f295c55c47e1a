"""Where everything of one run lies: every path in its folder, whose name is its identity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from training.settings.identity import run_name
from training.settings.name_template import LAST_CHECKPOINT
from training.settings.options import Options
from training.settings.tasks import DETECTION, TaskDescription

RUNS_ROOT = Path("models")
LOGS_ROOT = Path("logs")
OUTPUTS_ROOT = Path("outputs")
VERSIONS_NAME = "checkpoints"  # of the folder that holds an experiment's version_N folders
CONFIG_NAME = "config.yaml"
LOCK_NAME = ".lock"
MOVE_JOURNAL_NAME = ".moving_aside.json"
TRAINING_LOG_NAME = "training_log.csv"
REPORT_NAME = "report.html"
_ATTENTION, _FINAL_ATTENTION = "attention_epoch_", "final_attention_analysis"
_VERSION = re.compile(r"version_(\d+)")


def _suffix(comment: str | None) -> str:
    return f"_{comment}" if comment else ""


@dataclass(frozen=True)
class RunDirectory:
    """Every path of one run, relative to the folder the program was started in. Touches no disk by itself.

    `folder` holds the run's checkpoints, training log and heatmaps.
    """

    folder: Path
    comment: str | None = None
    task: TaskDescription = DETECTION

    @classmethod
    def of(cls, options: Options) -> RunDirectory:
        """Return the directory of the run these options name. Which one an experiment's is depends on the disk."""
        assert options.experiment is None, "see training/runs/experiments.py"
        return cls(RUNS_ROOT / run_name(options), options.comment, options.task)

    @property
    def logs_folder(self) -> Path:
        """The run's TensorBoard files."""
        return logs_folder_of(self.folder)

    def epoch_checkpoint(self, epochs_completed: int) -> Path:
        """The checkpoint after an epoch."""
        return self.folder / default_checkpoint_name("epoch", epochs_completed, self.comment)

    def step_checkpoint(self, step: int) -> Path:
        """The checkpoint of a run that was stopped inside an epoch, after `step` steps since the run began."""
        return self.folder / default_checkpoint_name("step", step, self.comment)

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.folder / f"{self.task.best_checkpoint_name}{_suffix(self.comment)}.pth"

    @property
    def best_weights(self) -> Path:
        """The weights of that epoch alone, for reuse."""
        return self.folder / f"{self.task.best_weights_name}{_suffix(self.comment)}.pth"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint that is furthest in training, whatever else it is called."""
        return self.folder / f"{LAST_CHECKPOINT}{_suffix(self.comment)}.pth"

    @property
    def training_log(self) -> Path:
        """One CSV row per epoch."""
        return self.folder / TRAINING_LOG_NAME

    @property
    def report(self) -> Path:
        """The page that tells the run."""
        return self.folder / REPORT_NAME

    def attention_folder(self, epochs_completed: int) -> Path:
        """The heatmaps drawn after an epoch."""
        return self.folder / f"{_ATTENTION}{epochs_completed}"

    @property
    def final_attention_folder(self) -> Path:
        """The heatmaps drawn at the end of training."""
        return self.folder / _FINAL_ATTENTION

    @property
    def config(self) -> Path:
        """The settings of the run, as a file that --config takes."""
        return self.folder / CONFIG_NAME

    @property
    def lock(self) -> Path:
        """Held by the one process that writes here."""
        return self.folder / LOCK_NAME

    @property
    def move_journal(self) -> Path:
        """Says what is being moved aside, so that an interrupted move is completed."""
        return self.folder / MOVE_JOURNAL_NAME

    def version_folder(self, version: int) -> Path:
        """Where an earlier run's checkpoints were moved."""
        return self.folder / f"version_{version}"

    def logs_version_folder(self, version: int) -> Path:
        """Where an earlier run's logs were moved."""
        return self.logs_folder / f"version_{version}"


def default_checkpoint_name(kind: str, count: int, comment: str | None) -> str:
    """Return what the checkpoint of an epoch or a step is called where --checkpoint_name says nothing of it.

    >>> default_checkpoint_name("epoch", 3, "demo")
    'checkpoint_epoch_3_demo.pth'
    """
    return f"checkpoint_{kind}_{count}{_suffix(comment)}.pth"


def logs_folder_of(folder: Path) -> Path:
    """Return the logs folder of a run folder.

    >>> str(logs_folder_of(Path("models/run")))
    'logs/run'
    >>> str(logs_folder_of(Path("outputs/fractalgen/checkpoints/version_3")))
    'outputs/fractalgen/logs/version_3'
    """
    return folder.parent.with_name(LOGS_ROOT.name) / folder.name if is_version(folder) else LOGS_ROOT / folder.name


def is_heatmaps_name(name: str) -> bool:
    """Whether a folder in a run folder is called as one that heatmaps are drawn into."""
    return name.startswith(_ATTENTION) or name == _FINAL_ATTENTION


def is_version(folder: Path) -> bool:
    """Whether this is the run folder of an experiment's version, by its path alone."""
    return folder.parent.name == VERSIONS_NAME and version_number(folder.name) is not None


def version_number(name: str) -> int | None:
    """Return N for the name version_N, None for any other name.

    >>> version_number("version_12"), version_number("checkpoint_epoch_1.pth")
    (12, None)
    """
    match = _VERSION.fullmatch(name)
    return int(match.group(1)) if match else None
