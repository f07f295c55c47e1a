"""The settings of when checkpoints are saved, which of them stay, what they are called and where a copy lies."""

from __future__ import annotations

from dataclasses import dataclass

from training.settings.setting import OnChange, setting
from utils.errors import EXIT_USAGE, UserError


@dataclass(frozen=True)
class SavingSettings:
    """When a run saves, and what stays; part of Options, which says what else must hold."""

    save_interval: int = setting(
        1000,
        "saving",
        OnChange.FREE,
        "save a checkpoint every N steps, in the middle of an epoch too; 0: only after epochs and when stopped",
        at_least=0,
    )
    max_lost: float | None = setting(
        None,
        "saving",
        OnChange.FREE,
        "save so often that a SIGKILL costs at most so much work, such as 60s, 5m or 1h (default: beside the other "
        "saves one after ten minutes, or after as long as makes it cost 1 % of training; none with --save_interval 0)",
        above=0,
        is_time=True,
    )
    mirror: str | None = setting(
        None,
        "saving",
        OnChange.FREE,
        "copy every checkpoint that is kept into a second place, such as a folder on another disk or a network mount; "
        "with --auto_resume the newer of both places is gone on from (default: none)",
    )
    val_interval: int = setting(
        0,
        "saving",
        OnChange.FREE,
        "validate every N steps too, so that step checkpoints can carry validation figures; 0: only after epochs",
        at_least=0,
    )
    save_freq: int = setting(
        1,
        "saving",
        OnChange.FREE,
        "keep the checkpoint of every N-th epoch; the latest and the best are kept anyway",
        at_least=1,
    )
    milestones: tuple[int, ...] = setting(
        (), "saving", OnChange.FREE, "epochs whose checkpoints are always kept, such as 10,25,50 (default: none)"
    )
    keep_last_n: int | None = setting(
        None,
        "saving",
        OnChange.FREE,
        "keep the last N epoch checkpoints and the last N step checkpoints, and what the other flags keep "
        "(default: every epoch, the last 5 steps)",
        at_least=1,
    )
    save_best_only: bool = setting(
        False, "saving", OnChange.FREE, "keep two checkpoint files, best and last, whatever the other flags say"
    )
    checkpoint_name: str | None = setting(
        None,
        "saving",
        OnChange.FREE,
        "name of step checkpoints, such as checkpoint_{kstep}k.pt or step_{step:08d}-val_loss_{val_loss:.4f}.ckpt; "
        "without {step} or {kstep}, of epoch checkpoints, such as checkpoint_epoch_{epoch:03d}.pth (default: "
        "checkpoint_step_{step}.pth and checkpoint_epoch_{epoch}.pth)",
    )
    compress_after: int | None = setting(
        None,
        "saving",
        OnChange.FREE,
        "deflate checkpoints once N newer ones of their kind are there: smaller files that load as before, "
        "but never with torch.load(mmap=True) (default: never)",
        at_least=1,
    )
    sync_save: bool = setting(
        False, "saving", OnChange.FREE, "wait for every save instead of writing while training goes on; for debugging"
    )

    def fill_in_saving(self) -> None:
        """Put the milestones in order, each once; they are a list where they were JSON."""
        object.__setattr__(self, "milestones", tuple(sorted(set(self.milestones))))

    def refuse_bad_milestones(self) -> None:
        """Raise UserError for an epoch that there is not; they are in order."""
        if self.milestones and self.milestones[0] < 1:
            raise UserError(f"--milestones must be epochs from 1 on, found {self.milestones[0]}", EXIT_USAGE)
