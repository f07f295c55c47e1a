"""What was asked for: settings, which of them were given, and what to do with checkpoints. Plain values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from training.settings.options import Options
from training.settings.yaml_settings import SettingsFile


class Action(enum.Enum):
    """Which of the four checkpoint flags was given."""

    DEFAULT = ""  # none of them: a fresh run
    FRESH_START = "--fresh_start"
    RESUME = "--resume"
    AUTO_RESUME = "--auto_resume"
    LIST_CHECKPOINTS = "--list_checkpoints"


class Look(enum.Enum):
    """Which of the flags was given that use files, whatever run they belong to, and train nothing."""

    INSPECT_CHECKPOINT = "--inspect_checkpoint"
    VALIDATE_CHECKPOINTS = "--validate_checkpoints"
    EXPORT = "--export"
    METRICS = "--metrics"
    EVAL = "--eval"
    SCORE = "--score"
    CHECK_DATA = "--check_data"


# What --export writes: a checkpoint that needs no other file, or the detector for other programs.
WHOLE_CHECKPOINT = "checkpoint"
EXPORT_FORMATS = (WHOLE_CHECKPOINT, "onnx", "torchscript", "safetensors")

# What --metrics measures: a part of the keys, `all` or one that their column names.
SUBSETS = ("eval", "progress", "hidden", "all")


@dataclass(frozen=True)
class MetricsFlags:
    """What was given beside --metrics or --eval; None where it was not."""

    keys: Path | None = None
    asv_scores: Path | None = None
    subset: str | None = None
    plots: Path | None = None


@dataclass(frozen=True)
class Command:
    """What was asked for: settings, which of them were given by flag or file, and what to do with checkpoints.

    `looked_at` is the path behind the flag that `look` names, None where there is none. With a `look`, `action` is
    DEFAULT and means nothing. --export names a format, `export_format`; its file is `model_path`, and `export_path`
    where the result goes, None for the default. `own_audio` are the files and folders behind --score. `given` names the
    settings that flags or the file `config` gave, and `typed` those that flags gave; `arguments` are all the words of
    the command line.
    """

    options: Options
    given: frozenset[str] = frozenset()
    action: Action = Action.DEFAULT
    model_path: Path | None = None
    load_checkpoint_type: str = "last"
    look: Look | None = None
    looked_at: Path | None = None
    export_format: str | None = None
    export_path: Path | None = None
    as_json: bool = False
    config: SettingsFile | None = None
    typed: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()
    metrics_flags: MetricsFlags = MetricsFlags()
    eval_output: Path | None = None
    average_checkpoints: int | None = None
    own_audio: tuple[Path, ...] = ()
