"""What is asked of the program: one kind of value for each verb, with what that verb needs. Plain values.

A field that is None has a meaning of its own, which its class tells. Where a verb can do without a path because the
settings name a run, the field holds one or the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from training.settings.options import Options
from training.settings.yaml_settings import SettingsFile
from utils.errors import EXIT_USAGE, UserError
from utils.scores.verdicts import EVEN_PRIOR

# What --export writes: a checkpoint that needs no other file, or the detector for other programs.
WHOLE_CHECKPOINT = "checkpoint"
EXPORT_FORMATS = (WHOLE_CHECKPOINT, "onnx", "torchscript", "safetensors")

# What --metrics measures: a part of the keys, `all` or one that their column names.
SUBSETS = ("eval", "progress", "hidden", "all")


@dataclass(frozen=True, kw_only=True)
class _WithSettings:
    """The settings that are asked for; `given` names those that flags or the file of --config gave, `typed` flags."""

    options: Options
    given: frozenset[str] = frozenset()
    typed: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class _Training(_WithSettings):
    """What all ways to begin a training have in common.

    `load_checkpoint_type` says which checkpoint of the folder `model_path` is meant, "last" or "best". `config` is the
    file of --config, None without one; `arguments` are all the words of the command line. Both, and `typed`, say what
    config.yaml will hold.
    """

    load_checkpoint_type: str = "last"
    config: SettingsFile | None = None
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Continuation(_Training):
    """What the ways to continue have in common.

    With `accept_changed_audio` the rest of an epoch is trained on other audio than its beginning, where it changed.
    """

    accept_changed_audio: bool = False


@dataclass(frozen=True, kw_only=True)
class NewRun(_Training):
    """Train from epoch 1, from the weights of `model_path` if there is one; `fresh_start`: the flag was typed."""

    model_path: Path | None = None
    fresh_start: bool = False


@dataclass(frozen=True, kw_only=True)
class Resume(_Continuation):
    """Continue from the checkpoint `model_path`, or from the last or best in that folder."""

    model_path: Path


@dataclass(frozen=True, kw_only=True)
class AutoResume(_Continuation):
    """Continue from the latest usable checkpoint; where there is none, begin as NewRun does."""

    model_path: Path | None = None


Train: TypeAlias = NewRun | Resume | AutoResume


@dataclass(frozen=True, kw_only=True)
class ListCheckpoints:
    """Print the checkpoints of a folder or beside a file, or of the run that settings name."""

    place: Path | Options
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class InspectCheckpoint:
    """Print what a file holds, or the last or best checkpoint of a run folder."""

    place: Path
    load_checkpoint_type: str = "last"
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class ValidateCheckpoints:
    """Check every bit of a file or of a folder's files, or of the run that settings name."""

    place: Path | Options
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a checkpoint in one of EXPORT_FORMATS, into `export_path`, or beside it under a name of its own.

    A detector is checked on speech from the folder `audio`, or from what it was trained on where that is None.
    """

    model_path: Path
    format_name: str
    load_checkpoint_type: str = "last"
    export_path: Path | None = None
    audio: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckData:
    """Read all of a corpus; `corpus` None is the demo corpus, `protocols` None those of the corpus.

    `label_1` is the class that labels of 0 and 1 write as 1, None where nobody said it.
    """

    corpus: Path | None
    protocols: Path | None
    num_threads: int
    label_1: str | None = None
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Print the figures of a score file.

    None means for `keys` those in the score file, for `asv_scores` the rates of ASVspoof 5, for `subset` eval if the
    keys name subsets, for the folder `plots` no pictures, and for `label_1` that keys of 0 and 1 are refused.
    """

    scores: Path
    keys: Path | None = None
    asv_scores: Path | None = None
    subset: str | None = None
    plots: Path | None = None
    label_1: str | None = None
    as_json: bool = False


@dataclass(frozen=True, kw_only=True)
class Scoring(_WithSettings):
    """What --eval and --score have in common: the detector. `flag` is the one that was typed.

    `model_path` None is the run that the settings name, `load_checkpoint_type` which checkpoint of a folder is meant,
    "last" or "best"; the weights are the mean of so many epochs as `average_checkpoints` says, 2 or more, or of one.
    `prior` is how probable bona fide is before anything was heard, in (0, 1).
    """

    flag: ClassVar[str]
    model_path: Path | None = None
    load_checkpoint_type: str = "last"
    average_checkpoints: int | None = None
    prior: float = EVEN_PRIOR
    as_json: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise UserError(
                f"--prior is the probability of bona fide before anything was heard, above 0 and below 1, found "
                f"{self.prior}",
                EXIT_USAGE,
            )
        if self.average_checkpoints is not None and self.average_checkpoints < 2:
            raise UserError(f"--average_checkpoints is 2 or more, found {self.average_checkpoints}", EXIT_USAGE)
        if self.average_checkpoints is not None and self.options.swa and "swa" in self.given:
            raise UserError(
                "--average_checkpoints makes a mean of epochs' files, and --swa takes the one that a run has kept: "
                "pass one of them",
                EXIT_USAGE,
            )


@dataclass(frozen=True, kw_only=True)
class Evaluate(Scoring):
    """Score an evaluation set, into `eval_output`, or beside the checkpoint; the others as in Metrics."""

    flag = "--eval"
    eval_output: Path | None = None
    asv_scores: Path | None = None
    subset: str | None = None
    plots: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Score(Scoring):
    """Score own audio: files, and all those in folders."""

    flag = "--score"
    own_audio: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class MakeSpoofs(_WithSettings):
    """Copy the bona fide speech of the corpus of the settings through vocoders, into the folder `folder`.

    `vocoders` are names as typed, `model_path` is one more. `load_checkpoint_type` says which checkpoint of a run
    folder is meant, "last" or "best".
    """

    folder: Path
    vocoders: tuple[str, ...] = ()
    model_path: Path | None = None
    load_checkpoint_type: str = "last"

    def __post_init__(self) -> None:
        if not self.named:
            raise UserError(
                "--make_spoofs needs vocoders: pass --vocoders NAME..., such as griffin_lim, or a checkpoint of "
                "--model_type hifigan",
                EXIT_USAGE,
            )

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """All names, each with the flag behind which it was typed."""
        more = ((str(self.model_path), "--model_path"),) if self.model_path else ()
        return (*((name, "--vocoders") for name in self.vocoders), *more)


Request: TypeAlias = (
    Train
    | ListCheckpoints
    | InspectCheckpoint
    | ValidateCheckpoints
    | Export
    | CheckData
    | MakeSpoofs
    | Metrics
    | Evaluate
    | Score
)
