"""The settings of Weights & Biases (W&B), and what names a run there. Nothing of W&B itself is imported here."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.settings.setting import OnChange, setting
from utils.errors import UserError
from utils.stored_values import is_word

_RUN_ID = re.compile(r"[^\W/\\#?%:*\[\]][^/\\#?%:*\[\]\s]{0,127}")  # it becomes part of paths and of patterns of them
MODES = ("online", "offline", "disabled")


@dataclass(frozen=True)
class WandbIdentity:
    """The W&B run that a training belongs to; `run_id` stays the same through every resume."""

    run_id: str
    name: str
    project: str

    def as_dict(self) -> dict[str, str]:
        """Return it as checkpoints hold it: wandb_run_id, wandb_run_name and wandb_project."""
        return {"wandb_run_id": self.run_id, "wandb_run_name": self.name, "wandb_project": self.project}

    @classmethod
    def in_payload(cls, payload: Mapping[str, Any]) -> WandbIdentity | None:
        """Return what a checkpoint holds; None where it was saved without it, or with what W&B takes for no id."""
        run_id, name, project = (payload.get(key) for key in ("wandb_run_id", "wandb_run_name", "wandb_project"))
        is_known = isinstance(run_id, str) and _RUN_ID.fullmatch(run_id) and is_word(name) and is_word(project)
        return cls(run_id, name, project) if is_known else None  # type: ignore[arg-type]


def refuse_missing_package() -> None:
    """Raise UserError where W&B is not installed; does not import it."""
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # the latter is a folder that happens to have the name
        raise UserError("--wandb needs the package wandb, not installed here: pip install -r requirements-wandb.txt")


@dataclass(frozen=True)
class WandbSettings:
    """The part of Options that says whether and how a run is logged to W&B; none of it changes what is trained."""

    wandb: bool = setting(
        False,
        "wandb",
        OnChange.FREE,
        "log the curves to Weights & Biases too; a missing login or network never stops training",
    )
    wandb_project: str | None = setting(
        None, "wandb", OnChange.FREE, "project (default: that of the checkpoint, WANDB_PROJECT, else bonafide)"
    )
    wandb_entity: str | None = setting(None, "wandb", OnChange.FREE, "user or team (default: yours)")
    wandb_name: str | None = setting(
        None, "wandb", OnChange.FREE, "name of the run (default: that of the checkpoint, else the run folder's)"
    )
    wandb_tags: tuple[str, ...] = setting(
        (), "wandb", OnChange.FREE, "tags of the run, such as adapter,training (default: none)"
    )
    wandb_notes: str | None = setting(None, "wandb", OnChange.FREE, "notes on the run (default: none)")
    wandb_mode: str | None = setting(
        None,
        "wandb",
        OnChange.FREE,
        "online, offline (files in the logs folder, for `wandb sync`) or disabled (default: WANDB_MODE, else online)",
        choices=MODES,
    )
    log_model: bool = setting(
        False, "wandb", OnChange.FREE, "at the end, upload the best and the last checkpoint as an artifact"
    )
    log_audio: bool = setting(
        False, "wandb", OnChange.FREE, "at the end, upload 8 validation utterances, half of each class, with scores"
    )
    save_wandb_metadata: bool = setting(
        True,
        "wandb",
        OnChange.FREE,
        "store id, name and project in checkpoints; without them a resumed run begins a new W&B run",
    )

    @property
    def logs_to_wandb(self) -> bool:
        """Whether W&B is asked for, and not disabled by the settings or the environment."""
        return self.wandb and (self.wandb_mode or os.environ.get("WANDB_MODE")) != "disabled"
