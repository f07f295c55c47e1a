"""The trainings whose calls fail: the task of two networks, and a detector with every feature on.

But W&B, whose service leaves the process group that is traced. The detector hears half a second, and its pictures are
blank: that takes longer than all else, and does nothing to the disk.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash_states.recorded import Work
from tests.crash_states.scenarios import SCENARIOS, Command, Scenario, training
from tests.system_calls.recorder import Fault
from training.data import batches
from training.tasks import heatmaps
from utils.audio.waveforms import fit_length

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Detection(Scenario):
    """Trains the compact detector in the place of the two networks."""

    def work(self, command: Command, corpus: Path) -> Work:
        """Return a command as something to be done in a fork, with short audio and small pictures."""
        done = super().work(command, corpus)

        def made_small() -> int | None:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(batches, "fit_length", functools.partial(fit_length, crop_samples=8_000))
                patched.setattr(heatmaps, "sample_figure", _blank)
                patched.setattr(heatmaps, "_CLASS_FIGURES", dict.fromkeys(heatmaps._CLASS_FIGURES, _blank))
                return done()

        return made_small

    @staticmethod
    def _more(command: Command, corpus: Path) -> Sequence[str]:
        return ["--ssl_model", "compact", "--num_workers", "0", "--database_path", str(corpus)]


def _blank(*_: object) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(1, 1))


_EVERYTHING = (
    *("--num_epochs", "3", "--num_examples", "4", "--batch_size", "2", "--lr", "1e-3"),
    *("--save_interval", "1", "--keep_last_n", "2", "--milestones", "1", "--compress_after", "1"),
    *("--val_interval", "1", "--experiment", "all", "--checkpoint_name", "at_{epoch:02d}_{step:05d}.pth"),
    *("--use_contrastive", "--algo", "5", "--visualize_attention", "--viz_samples", "2", "--viz_frequency", "0"),
)
_AGAIN = (*_EVERYTHING, "--auto_resume")
TOY = "two networks"
EXHAUSTIVE = frozenset((TOY,))
_SCENARIOS = (
    "in the foreground",
    "the best alone is kept",
    "old ones are compressed",
    "names by a template",
    "a new run moves the old one aside",
    "a run goes on from an older epoch",
    "a run of another length is brought along",
    "an experiment's next version",
)
TRAININGS: Mapping[str, Scenario] = {
    TOY: training(2, "--keep_last_n", "1", "--save_interval", "2"),
    "a detector with every feature": _Detection(_EVERYTHING, _AGAIN),
    "a detector goes on in the middle of an epoch": _Detection(
        _AGAIN, _AGAIN, (_EVERYTHING,), Fault("rename", r"/at_01_00003\.pth$", kill=True, after=True)
    ),
    **{f"networks, {name}": SCENARIOS[name] for name in _SCENARIOS},
}
