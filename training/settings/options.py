"""What the user asked for: every setting of a run, typed, validated and frozen, with what a change of it means.

Each setting is declared once: its default, its help text, the values it may have and what happens when a resumed run
changes it. Five groups are declared in classes of their own, which Options inherits; all others here. The command
line, the YAML reader, the resume checks and the checkpoint all read this table.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from models.names import (
    COMPACT,
    FRONT_END_TYPES,
    MODEL_TYPES,
    TEMPORAL_BIASES,
    TYPES_WITH_SETTING,
    VOCODER_SIZES,
    XLS_R_300M,
)
from training.settings.data import DEMO_DATABASE, DataSettings
from training.settings.learning_rates import RATE_OF_DETECTOR, default_rate
from training.settings.name_template import NameTemplate
from training.settings.rawboost import RawBoostSettings
from training.settings.recipe import RecipeSettings
from training.settings.saving import SavingSettings
from training.settings.setting import GROUPS, OnChange, Setting, check_part_of_a_path, check_value, setting
from training.settings.tasks import JUDGED_VOCODER, TaskDescription, task_of
from training.settings.wandb import WandbSettings
from utils.errors import EXIT_USAGE, UserError

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


@dataclass(frozen=True)
class Options(DataSettings, RecipeSettings, RawBoostSettings, SavingSettings, WandbSettings):
    """The settings of one run; impossible to build with a bad value.

    >>> Options().lr
    1e-06
    >>> Options(group_size=0)
    Traceback (most recent call last):
    ...
    utils.errors.UserError: --group_size must be at least 1, found 0
    """

    model_type: str = setting(
        "g3_heatmap",
        "detector",
        OnChange.REFUSED,
        "detector: g3_heatmap, sls or ssl_mean, on a self-supervised front-end; aasist or aasist_l, on the waveform; "
        "lcnn, on cepstra (LFCC); spectrogram_resnet18 or spectrogram_swin, on mel spectra. Or hifigan, a "
        "vocoder: from mel spectra to speech, trained on the bona fide utterances",
        choices=MODEL_TYPES,
    )
    vocoder_size: str = setting(
        "V1",
        "detector",
        OnChange.REFUSED,
        "hifigan: V1, V2 or V3, as published, for GPUs, or small, which trains on two CPU cores",
        choices=VOCODER_SIZES,
    )
    metric_discriminator: bool = setting(
        False,
        "detector",
        OnChange.REFUSED,
        "hifigan: a third discriminator, which learns to predict the PESQ of what the generator makes "
        "(pip install -r requirements-vocoder.txt)",
    )
    ssl_model: str = setting(
        "",
        "detector",
        OnChange.REFUSED,
        "front-end: hub name or local folder of a wav2vec2-family model, a file of fairseq's such as xlsr2_300m.pt, or "
        "`compact`, a small one with random weights "
        f"(default: {XLS_R_300M}; `compact` with the demo corpus)",
    )
    group_size: int = setting(3, "detector", OnChange.REFUSED, "front-end layers per attention group", at_least=1)
    temporal_bias: str = setting(
        "centre",
        "detector",
        OnChange.REFUSED,
        "prior of the temporal attention: the published inverted U that favours the middle of an utterance, or none",
        choices=TEMPORAL_BIASES,
    )
    normalize_waveform: bool = setting(
        False,
        "detector",
        OnChange.REFUSED,
        "give the front-end zero-mean, unit-variance waveforms (default: raw, as the field does)",
    )
    freeze_ssl: bool = setting(
        False,
        "detector",
        OnChange.REFUSED,
        "do not train the front-end; its weights are then stored once per run, not in every checkpoint",
    )
    use_contrastive: bool = setting(
        False, "detector", OnChange.REFUSED, "add a projection head and two contrastive terms to the loss"
    )
    precision: str = setting(
        "fp32",
        "machine",
        OnChange.BREAKS_EPOCH,
        "fp32, or with fp32 weights bf16 or fp16: autocast in bfloat16, or in float16 with a loss scale",
        choices=("fp32", "bf16", "fp16"),
    )
    adam: str = setting(
        "fused",
        "machine",
        OnChange.REFUSED,
        "how Adam's update is computed: fused, some four times as fast on a CPU, or plain, as runs of earlier versions "
        "do; the last bits differ, so a run keeps the one that it began with",
        choices=("fused", "plain"),
    )
    device: str = setting("auto", "machine", OnChange.FREE, "auto (a GPU if there is one), cpu, cuda or cuda:N")
    num_workers: int = setting(
        2, "machine", OnChange.FREE, "processes that read audio; the results do not depend on it", at_least=0
    )
    experiment: str | None = setting(
        None,
        "run",
        OnChange.FREE,
        "keep this run in outputs/NAME/checkpoints/version_N/ and outputs/NAME/logs/version_N/, the next N for each "
        "new run (default: models/ and logs/, named by the settings)",
    )
    comment: str | None = setting(
        None, "run", OnChange.FREE, "names the experiment: ends the names of folder and files (default: none)"
    )
    visualize_attention: bool = setting(
        False, "heatmaps", OnChange.FREE, "write attention heatmaps (PNG) into the run folder"
    )
    viz_samples: int = setting(
        20, "heatmaps", OnChange.FREE, "validation utterances to draw, half of each class", at_least=1
    )
    viz_frequency: int = setting(
        10, "heatmaps", OnChange.FREE, "draw after every N epochs and at the end; 0: only at the end", at_least=0
    )

    def __post_init__(self) -> None:
        for name in SETTINGS:
            if must_be := wrong_type(name, value := getattr(self, name)):
                raise UserError(f"--{name} must be {must_be}, found {value!r}", EXIT_USAGE)
        self._refuse_settings_of_other_detectors()
        object.__setattr__(self, "ssl_model", self.ssl_model or self.default_of("ssl_model"))
        if self.lr is RATE_OF_DETECTOR:
            object.__setattr__(self, "lr", self.default_of("lr"))
        self.fill_in_recipe()
        self.fill_in_saving()
        object.__setattr__(self, "wandb_tags", tuple(self.wandb_tags))
        for name, declared in SETTINGS.items():
            check_value(name, getattr(self, name), declared)
        self.refuse_bad_milestones()
        self.refuse_ranges_turned_round()
        self.refuse_bad_recipe()
        for name in ("comment", "experiment"):
            check_part_of_a_path(name, getattr(self, name))
        if not _DEVICE.fullmatch(self.device):
            raise UserError(f"--device must be auto, cpu, cuda or cuda:N, found {self.device!r}", EXIT_USAGE)
        _ = self.name_template  # reading it is the check

    @property
    def name_template(self) -> NameTemplate | None:
        """What --checkpoint_name asks for; None where it was not given."""
        if self.checkpoint_name is None:
            return None
        texts = {"comment": self.comment or "", "model_type": self.model_type, "seed": str(self.seed)}
        return NameTemplate.parse(
            self.checkpoint_name, texts, self.task, save_interval=self.save_interval, val_interval=self.val_interval
        )

    @property
    def is_fine_tuning(self) -> bool:
        """Whether a front-end with trained weights is trained further, so that rates for that are the right ones."""
        return self.model_type in FRONT_END_TYPES and self.ssl_model != COMPACT and not self.freeze_ssl

    def default_of(self, name: str) -> Any:
        """Return the value that a setting has where it is not given and the others are as here.

        >>> Options(balanced_batches=True).default_of("class_weights"), Options().default_of("seed")
        ((1.0, 1.0), 1234)
        """
        match name:
            case "ssl_model" if self.model_type in FRONT_END_TYPES:
                return COMPACT if self.database_path == DEMO_DATABASE else XLS_R_300M
            case "class_weights":
                return self.default_class_weights
            case "lr":
                return default_rate(self.model_type)
        return _DECLARED_DEFAULTS[name]

    @property
    def task(self) -> TaskDescription:
        """What a run with these settings trains."""
        return JUDGED_VOCODER if self.metric_discriminator else task_of(self.model_type)

    def _refuse_settings_of_other_detectors(self) -> None:
        if self.model_type not in MODEL_TYPES:
            return  # refused as such, later
        for option in dataclasses.fields(self):
            types = TYPES_WITH_SETTING.get(option.name, MODEL_TYPES)
            if self.model_type in types or getattr(self, option.name) == option.default:
                continue
            *first, last = types
            raise UserError(
                f"--{option.name} is for --model_type {', '.join(first) + ' or ' if first else ''}{last}, and "
                f"{self.model_type} has no use for it: drop --{option.name}, or pass --model_type {types[0]}",
                EXIT_USAGE,
            )
        for name in self.task.unused:
            value = getattr(self, name)
            value = tuple(value) if isinstance(value, list) else value  # where it was JSON
            if value not in (_DECLARED_DEFAULTS[name], self.default_of(name)):
                raise UserError(
                    f"--{name} is for detectors, and --model_type {self.model_type} has no use for it: drop --{name}",
                    EXIT_USAGE,
                )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain Python values, for the checkpoint, JSON and YAML."""
        values = dataclasses.asdict(self)
        return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in SETTINGS}

    def replaced(self, **values: Any) -> Options:
        """Return the same settings with some values changed, checked again."""
        return dataclasses.replace(self, **values)


_DECLARED_DEFAULTS: Mapping[str, Any] = {f.name: f.default for f in dataclasses.fields(Options)}
_DECLARED: Mapping[str, Setting] = {f.name: f.metadata["setting"] for f in dataclasses.fields(Options)}
SETTINGS = {name: _DECLARED[name] for name in sorted(_DECLARED, key=lambda name: GROUPS.index(_DECLARED[name].group))}
"""Every setting, group by group, those of a group in the order of their declaration."""
_HINTS: Mapping[str, Any] = typing.get_type_hints(Options)
_TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_PARTS_WORDS = {
    int: "whole numbers, as [10, 25, 50]",
    float: "numbers, as [0.1, 0.9]",
    str: "a list of words, as [adapter, training]",
}


@cache
def setting_type(name: str) -> type:
    """Return the plain type of a setting: int, float, str, bool or tuple; `int | None` counts as int.

    >>> setting_type("num_examples")
    <class 'int'>
    """
    annotation = _HINTS[name]
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    annotation = typing.get_origin(annotation) or annotation
    assert isinstance(annotation, type)
    return annotation


@cache
def part_type(name: str) -> type:
    """Return what the parts of a setting of several are: int, float or str.

    >>> part_type("class_weights")
    <class 'float'>
    """
    kind = typing.get_args(_HINTS[name])[0]
    assert isinstance(kind, type)
    return kind


def wrong_type(name: str, value: Any) -> str:
    """Return what a setting must be, "" where a value is of that type; a whole number is a number, too.

    >>> wrong_type("lr", 1), wrong_type("lr", "1e-6"), wrong_type("seed", True), wrong_type("comment", None)
    ('', 'a number', 'a whole number', '')
    """
    kind = setting_type(name)
    if kind is tuple:
        of_part = part_type(name)
        fits = isinstance(value, list | tuple) and all(_is_of(part, of_part) for part in value)
        return "" if fits else _PARTS_WORDS[of_part]
    fits = _is_of(value, kind) or (value is None and isinstance(_HINTS[name], types.UnionType))
    return "" if fits else _TYPE_WORDS[kind]


def _is_of(value: Any, kind: type) -> bool:
    """Whether a value is of a type; of whole numbers those are numbers that a float can hold."""
    return type(value) is kind or (kind is float and type(value) is int and value.bit_length() < 1024)


_BEFORE_IT_EXISTED = {"adam": "plain"}


def options_from_record(stored: Mapping[str, Any]) -> Options:
    """Rebuild the options of a checkpoint.

    A setting that did not exist yet when it was saved has the value of that time, which is its default but for --adam.
    """
    unknown = sorted(set(stored) - set(SETTINGS))
    if unknown:
        raise UserError(
            f"the checkpoint has settings this version does not know ({', '.join(unknown)}): "
            "it was written by a newer bonafide, update this one"
        )
    return Options(**(_BEFORE_IT_EXISTED | dict(stored)))
