"""What each task is called and which figures it gives: facts that planning and listing need where no torch is loaded.

A task is what a run trains: a detector, say. What it does with a network is in `training/tasks/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

from training.settings.rawboost import RawBoostSettings
from training.settings.recipe import RecipeSettings
from utils.stored_values import Check, is_count, is_number, is_word, optional, require


def _is_label(value: Any) -> bool:
    return value == "" or is_word(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_OF_A_FIGURE: Mapping[str, Check] = {
    "part": lambda value: value in ("train", "val"),
    "key": lambda value: isinstance(value, str) and value.isidentifier(),
    **dict.fromkeys(("short", "unit", "chart", "tag"), _is_label),
    "decimals": lambda value: is_count(value) and value <= 12,
    "rank": is_count,
    **dict.fromkeys(("higher_is_better", "listed"), _is_flag),
    **dict.fromkeys(("floor", "ceiling"), optional(is_number)),
}


@dataclass(frozen=True)
class Figure:
    """One number that an epoch gives: of its training, or of a validation.

    `part` and `key` make its name in checkpoints, CSV and name templates, `short` is what people read. `rank` 1 decides
    which epoch is the best, 2 and higher break its ties in turn, 0 decides nothing. `listed` figures stand in
    --list_checkpoints. Figures of one `chart` are drawn in one picture, whose axis ends at `floor` and `ceiling` where
    the measure does; `tag` is the last part of its name in TensorBoard and W&B, "" for `key`.

    >>> Figure("val", "eer", "EER", unit="%", decimals=2).text(12.3456)
    'val EER 12.35%'
    """

    part: Literal["train", "val"]
    key: str
    short: str
    unit: str = ""
    decimals: int = 4
    higher_is_better: bool = False
    rank: int = 0
    listed: bool = False
    chart: str = ""
    floor: float | None = None
    ceiling: float | None = None
    tag: str = ""

    @property
    def name(self) -> str:
        """The name in files: `val_eer`."""
        return f"{self.part}_{self.key}"

    @property
    def label(self) -> str:
        """The name within a line: `val EER`."""
        return f"{self.part} {self.short}"

    @property
    def title(self) -> str:
        """The name at the start of a line: `Val EER`."""
        return f"{self.part.capitalize()} {self.short_title}"

    @property
    def short_title(self) -> str:
        """The measure at the start of a line: `EER`, `Acc`."""
        return self.short[:1].upper() + self.short[1:]

    @property
    def scalar(self) -> str:
        """The last part of the name of its curve in TensorBoard and W&B."""
        return self.tag or self.key

    def value_text(self, value: float) -> str:
        """Return a value as people read it, with its unit."""
        return f"{value:.{self.decimals}f}{self.unit}"

    def text(self, value: float) -> str:
        """Return label and value."""
        return f"{self.label} {self.value_text(value)}"


@dataclass(frozen=True)
class Figures:
    """The figures of a task, in the order in which files hold them, and which epoch is the best by them.

    >>> figures = DETECTION.figures
    >>> figures.first.name, [figure.name for figure in figures.ranking]
    ('val_eer', ['val_eer', 'val_loss'])
    """

    all: tuple[Figure, ...]

    def __post_init__(self) -> None:
        names = [figure.name for figure in self.all]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"figures share the name {', '.join(sorted(twice))}")
        if [figure.rank for figure in self.ranking] != list(range(1, len(self.ranking) + 1)) or not self.ranking:
            raise ValueError("figures need the ranks 1, 2, ... once each, the first one at least")

    @cached_property
    def ranking(self) -> tuple[Figure, ...]:
        """Those that decide which epoch is the best, the first one first."""
        return tuple(sorted((figure for figure in self.all if figure.rank), key=lambda figure: figure.rank))

    @property
    def first(self) -> Figure:
        """The one that decides."""
        return self.ranking[0]

    @property
    def of_validation(self) -> tuple[Figure, ...]:
        """Those that a validation gives."""
        return tuple(figure for figure in self.all if figure.part == "val")

    @property
    def listed(self) -> tuple[Figure, ...]:
        """Those that --list_checkpoints shows, the one that decides first."""
        return tuple(sorted((figure for figure in self.all if figure.listed), key=lambda figure: figure.rank != 1))

    @property
    def charts(self) -> tuple[tuple[Figure, ...], ...]:
        """Those that are drawn together, the chart of the figure that decides first."""
        titles = dict.fromkeys([self.first.chart, *(figure.chart for figure in self.all)])
        return tuple(tuple(figure for figure in self.all if figure.chart == title) for title in titles if title)

    @property
    def by_measure(self) -> tuple[Figure, ...]:
        """All of them, those of one measure beside each other: the columns of a table."""
        keys = dict.fromkeys(figure.key for figure in self.all)
        return tuple(figure for key in keys for figure in self.all if figure.key == key)

    def order(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return what sorts the figures of epochs from the best on."""
        return tuple(-values[f.name] if f.higher_is_better else values[f.name] for f in self.ranking)

    def as_list(self) -> list[dict[str, Any]]:
        """Return them as plain values, for records."""
        return [asdict(figure) for figure in self.all]

    @classmethod
    def from_list(cls, stored: Any) -> Figures:
        """Rebuild what `as_list` gave; raises TypeError or ValueError (OddValueError) for anything else.

        What a later version says of a figure beside that is passed over.
        """
        known = {field.name: field.type for field in fields(Figure)}
        found = tuple(Figure(**{name: value for name, value in dict(one).items() if name in known}) for one in stored)
        for figure in found:
            require(asdict(figure), _OF_A_FIGURE)
        return cls(found)


_DETECTOR_BEGINS = (
    "{model_type}_{track}_{loss}_{num_epochs}_{batch_size}_{lr}_group{group_size}_contrastive{use_contrastive}"
)


@dataclass(frozen=True)
class TaskDescription:
    """What is known of a task before it is loaded.

    `trains` is what it trains, in a word. `begins` says how the name of a run's folder begins: a format string with
    names of settings. `refuses` says of a verb's flag why it makes no sense for what this task trains, and `unused` are
    the settings that it has no use for. With `own_schedule` its learning rate follows other rules than those of
    --scheduler, in proportion to --lr, which planning does not know. Unless it `needs_spoofs` it hears bona fide speech
    alone.
    """

    name: str
    figures: Figures
    trains: str = "detector"
    begins: str = _DETECTOR_BEGINS
    unused: tuple[str, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)
    own_schedule: bool = False
    needs_spoofs: bool = True

    @property
    def best_checkpoint_name(self) -> str:
        """How the name of the best checkpoint begins."""
        return f"{BEST_CHECKPOINT}{self.figures.first.key}"

    @property
    def best_weights_name(self) -> str:
        """How the name of the file with the best weights begins."""
        return f"{BEST_WEIGHTS}{self.figures.first.key}"


BEST_CHECKPOINT = "best_checkpoint_"
BEST_WEIGHTS = "best_model_"


def _eer(part: Literal["train", "val"], rank: int = 0, *, listed: bool = False) -> Figure:
    return Figure(
        part, "eer", "EER", unit="%", decimals=2, rank=rank, listed=listed, chart="Equal error rate", floor=0.0
    )


def _loss(part: Literal["train", "val"], rank: int = 0) -> Figure:
    return Figure(part, "loss", "loss", rank=rank, chart="Loss", floor=0.0)


_ACCURACY = Figure(
    "val",
    "acc",
    "acc",
    unit="%",
    decimals=2,
    higher_is_better=True,
    listed=True,
    chart="Validation accuracy",
    floor=0.0,
    ceiling=100.0,
    tag="accuracy",
)
DETECTION = TaskDescription(
    "detection",
    Figures((_loss("train"), _eer("train"), _loss("val", rank=2), _ACCURACY, _eer("val", rank=1, listed=True))),
)
"""A speech deepfake detector. Its validation EER on ASVspoof 2019 LA is near 0 for large models from the first epoch
on, so ties are the rule, and the loss breaks them."""

_USED_OF_RECIPE = ("batch_size", "accumulate_steps", "num_epochs", "patience", "lr", "clip_grad_norm", "seed")
VOCODER = TaskDescription(
    "vocoder",
    Figures(
        (
            Figure("train", "discriminator", "discriminator loss", chart="Loss", floor=0.0),
            Figure("train", "generator", "generator loss", chart="Generator loss", floor=0.0),
            Figure("train", "mel", "mel distance", chart="Mel distance", floor=0.0),
            Figure("val", "mel", "mel distance", rank=1, listed=True, chart="Mel distance", floor=0.0),
        )
    ),
    trains="vocoder",
    begins="{model_type}_{vocoder_size}_{num_epochs}_{batch_size}_{lr}",
    unused=(
        *("track", "crop", *(one.name for one in fields(RawBoostSettings))),
        *(one.name for one in fields(RecipeSettings) if one.name not in _USED_OF_RECIPE),
    ),
    refuses={"--score": "a vocoder makes speech and judges none: pass a detector"},
    own_schedule=True,
    needs_spoofs=False,
)
"""A HiFi-GAN vocoder. The mel distance is the mean absolute difference of the natural logarithms in 80 mel bands."""

_OF_DISCRIMINATORS, *_OTHERS = VOCODER.figures.all
_OF_METRIC = Figure("train", "metric", "metric discriminator loss", chart="Metric discriminator loss", floor=0.0)
JUDGED_VOCODER = replace(VOCODER, figures=Figures((_OF_DISCRIMINATORS, _OF_METRIC, *_OTHERS)))
"""The same with --metric_discriminator."""

TASK_OF_MODEL: dict[str, TaskDescription] = {"hifigan": VOCODER}
"""What trains a --model_type, where that is not a detector."""


def task_of(model_type: str) -> TaskDescription:
    """Return the task that trains models of this type."""
    return TASK_OF_MODEL.get(model_type, DETECTION)
