"""The settings of how a detector is trained: loss, steps, learning rate, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass

from training.setting import OnChange, setting


@dataclass(frozen=True)
class RecipeSettings:
    """The part of Options that says what is minimised and by which steps."""

    loss: str = setting(
        "CCE",
        "training",
        OnChange.REPORTED,
        "CCE: cross-entropy with weights 0.1 for spoof and 0.9 for bona fide",
        choices=("CCE",),
    )
    contrastive_weight: float = setting(
        0.1, "training", OnChange.REPORTED, "weight of the margin contrastive term", at_least=0
    )
    supcon_weight: float = setting(
        0.1, "training", OnChange.REPORTED, "weight of the supervised contrastive term", at_least=0
    )
    batch_size: int = setting(16, "training", OnChange.BREAKS_EPOCH, "utterances per step", at_least=1)
    num_epochs: int = setting(100, "training", OnChange.REPORTED, "train until this many epochs are done", at_least=1)
    lr: float = setting(1e-6, "training", OnChange.REPORTED, "learning rate of Adam", above=0)
    weight_decay: float = setting(1e-4, "training", OnChange.REPORTED, "weight decay of Adam", at_least=0)
    scheduler: str = setting(
        "constant",
        "training",
        OnChange.REPORTED,
        "learning rate after the warm-up: constant, or falling to 0 at the last step of --num_epochs",
        choices=("constant", "linear", "cosine"),
    )
    warmup_steps: int = setting(
        0, "training", OnChange.REPORTED, "steps over which the learning rate rises from 0 to --lr", at_least=0
    )
    seed: int = setting(
        1234, "training", OnChange.BREAKS_EPOCH, "seed of every random draw", at_least=0, at_most=2**63 - 1
    )
