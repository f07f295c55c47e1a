"""The trainings whose calls fail: the task of two networks, and a detector with every feature on.

But W&B, whose service leaves the process group that is traced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.crash_states.scenarios import SCENARIOS, Command, Scenario, training


class _Detection(Scenario):
    """Trains the compact detector in the place of the two networks."""

    @staticmethod
    def _more(command: Command, corpus: Path) -> Sequence[str]:
        return ["--ssl_model", "compact", "--num_workers", "0", "--database_path", str(corpus)]


_EVERYTHING = (
    *("--num_epochs", "3", "--batch_size", "4", "--lr", "1e-3"),
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
    **{f"networks, {name}": SCENARIOS[name] for name in _SCENARIOS},
}
