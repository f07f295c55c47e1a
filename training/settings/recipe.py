"""The settings of how a detector is trained: loss, batches, steps, learning rate, and when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.settings.learning_rates import RATE_OF_DETECTOR
from training.settings.setting import OnChange, setting
from utils.errors import EXIT_USAGE, UserError

# Of spoof and bona fide in ASVspoof 2019 LA, where one utterance in ten is bona fide (clovaai/aasist main.py and its
# descendants).
CLASS_WEIGHTS = (0.1, 0.9)
EVEN_WEIGHTS = (1.0, 1.0)
ONE_CLASS_LOSS = "oc_softmax"
"""The loss that makes another detector: one that decides by the angle to a learned centre (models/one_class.py)."""


@dataclass(frozen=True)
class RecipeSettings:
    """The part of Options that says what is minimised, by which steps, and until when."""

    loss: str = setting(
        "CCE",
        "training",
        OnChange.REFUSED,
        "CCE, also called WCE: cross-entropy; focal: cross-entropy in which what is easy counts less; oc_softmax: only "
        "bona fide is compact, around a learned centre. Each with --class_weights",
        choices=("CCE", "WCE", "focal", ONE_CLASS_LOSS),
    )
    class_weights: tuple[float, ...] = setting(
        (),
        "training",
        OnChange.REPORTED,
        "weights of spoof and of bona fide in the loss (default: 0.1,0.9; 1,1 with oc_softmax or --balanced_batches)",
    )
    focal_gamma: float = setting(
        2.0, "training", OnChange.REPORTED, "focal: how much less what is easy counts; 0 is CCE", at_least=0
    )
    contrastive: str = setting(
        "margin",
        "training",
        OnChange.REPORTED,
        "the contrastive term of --contrastive_weight: margin, on the embedding (arXiv 2602.01032), or infonce, on the "
        "projection, as the public code of that paper has it",
        choices=("margin", "infonce"),
    )
    contrastive_weight: float = setting(
        0.1, "training", OnChange.REPORTED, "weight of the term that --contrastive names", at_least=0
    )
    supcon_weight: float = setting(
        0.1, "training", OnChange.REPORTED, "weight of the supervised contrastive term", at_least=0
    )
    batch_size: int = setting(16, "training", OnChange.BREAKS_EPOCH, "utterances per batch", at_least=1)
    balanced_batches: bool = setting(
        False,
        "training",
        OnChange.BREAKS_EPOCH,
        "as many bona fide as spoof utterances in every batch: in an epoch each of the larger class comes once, those "
        "of the smaller one again and again",
    )
    pair_batches: bool = setting(
        False,
        "training",
        OnChange.BREAKS_EPOCH,
        "every spoof in one batch with the utterance that it was made of, which the column `source` of train.csv "
        "names, as --make_spoofs writes it; a batch that no more of them fit into stays smaller",
    )
    accumulate_steps: int = setting(
        1,
        "training",
        OnChange.BREAKS_EPOCH,
        "batches per step, their gradients added up: batch size 4 with 8 of them is 32 in the memory of 4 (but batch "
        "norm sees 4). Every count of steps is of such steps",
        at_least=1,
    )
    num_epochs: int = setting(100, "training", OnChange.REPORTED, "train until this many epochs are done", at_least=1)
    patience: int = setting(
        0,
        "training",
        OnChange.REPORTED,
        "end training after N epochs without a new best one; 0: never",
        at_least=0,
    )
    lr: float = setting(
        RATE_OF_DETECTOR,
        "training",
        OnChange.REPORTED,
        "learning rate of Adam (default: the published one of the detector: 1e-6 for those that fine-tune XLS-R, 1e-4 "
        "for aasist and aasist_l, 3e-4 for lcnn; 1e-3 for spectrogram_*, for which none is. `compact` and --freeze_ssl "
        "need 1e-3)",
        above=0,
    )
    weight_decay: float = setting(1e-4, "training", OnChange.REPORTED, "weight decay of Adam", at_least=0)
    clip_grad_norm: float | None = setting(
        None,
        "training",
        OnChange.REPORTED,
        "shrink the gradient of a step to this norm where it is larger (default: never)",
        above=0,
    )
    scheduler: str = setting(
        "constant",
        "training",
        OnChange.REPORTED,
        "learning rate after the warm-up: constant, falling to --lr_min at the last step of --num_epochs, or lowered "
        "when validation improves no more (plateau)",
        choices=("constant", "linear", "cosine", "plateau"),
    )
    lr_min: float = setting(
        0.0,
        "training",
        OnChange.REPORTED,
        "learning rate that linear and cosine end at and plateau does not go below; AASIST has 5e-6",
        at_least=0,
    )
    plateau_patience: int = setting(
        3,
        "training",
        OnChange.REPORTED,
        "plateau: epochs in a row without a new best one that are waited for; the next such epoch lowers the rate, as "
        "with torch's ReduceLROnPlateau",
        at_least=0,
    )
    plateau_factor: float = setting(
        0.5, "training", OnChange.REPORTED, "plateau: what the rate is multiplied with", above=0, at_most=1
    )
    warmup_steps: int = setting(
        0, "training", OnChange.REPORTED, "steps over which the learning rate rises from 0 to --lr", at_least=0
    )
    swa: bool = setting(
        False,
        "training",
        OnChange.REFUSED,
        "keep the mean of the weights of the epochs whose validation EER no earlier one went below, as AASIST does; "
        "with --eval and --score: use it",
    )
    swa_below: float = setting(
        100.0,
        "training",
        OnChange.REPORTED,
        "swa: leave out epochs with a higher validation EER, in percent; AASIST has 1",
        at_least=0,
    )
    seed: int = setting(
        1234, "training", OnChange.BREAKS_EPOCH, "seed of every random draw", at_least=0, at_most=2**63 - 1
    )

    def fill_in_recipe(self) -> None:
        """Give settings that depend on others their values; for Options alone, while it is made."""
        if self.loss == "WCE":
            object.__setattr__(self, "loss", "CCE")
        weights = self.class_weights or self.default_class_weights
        object.__setattr__(self, "class_weights", tuple(weights))  # a list where it was JSON

    @property
    def default_class_weights(self) -> tuple[float, ...]:
        """What the weights are where none are given."""
        is_even = self.loss == ONE_CLASS_LOSS or self.balanced_batches
        return EVEN_WEIGHTS if is_even else CLASS_WEIGHTS

    def refuse_bad_recipe(self) -> None:
        """Raise UserError for settings that contradict each other."""
        if len(self.class_weights) != 2 or any(not 0 < weight < math.inf for weight in self.class_weights):
            found = ",".join(f"{weight:g}" for weight in self.class_weights)
            raise UserError(
                "--class_weights must be two numbers above 0, for spoof and for bona fide, such as 0.1,0.9, "
                f"found {found}",
                EXIT_USAGE,
            )
        if self.balanced_batches and self.batch_size % 2:
            raise UserError(
                f"--balanced_batches needs an even --batch_size, found {self.batch_size}: "
                f"pass {self.batch_size + 1}, for example",
                EXIT_USAGE,
            )
        if self.lr_min > self.lr:
            raise UserError(
                f"--lr_min is what --lr falls to and must not exceed it, found {self.lr_min:g} and {self.lr:g}",
                EXIT_USAGE,
            )
        if self.scheduler == "plateau" and 0 < self.patience <= self.plateau_patience:
            raise UserError(
                f"--patience {self.patience} ends training before --plateau_patience {self.plateau_patience} can lower "
                "the rate: pass a higher --patience or a lower --plateau_patience",
                EXIT_USAGE,
            )
