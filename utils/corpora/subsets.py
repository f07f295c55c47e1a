"""Chooses the trials of an evaluation set that a figure is about."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from utils.corpora.trials import ScannedProtocol
from utils.errors import UserError


def chosen_subset(scanned: ScannedProtocol, subset: str | None) -> tuple[str, ScannedProtocol]:
    """Return the name and the trials of a subset; None means eval where there are subsets, else all.

    Official figures of ASVspoof 2021 are those of eval. Raises UserError where the keys do not have the subset.
    """
    counts = Counter(trial.subset for trial in scanned.trials if trial.subset)
    name = subset or ("eval" if counts else "all")
    if name == "all":
        return name, scanned
    if not counts:
        raise UserError(f"--subset {name}: {scanned.path} has no subsets: leave --subset out")
    if name not in counts:
        found = ", ".join(f"{subset} ({count:,})" for subset, count in sorted(counts.items()))
        raise UserError(f"--subset {name}: {scanned.path} has no such trials, found {found}: pass one of these")
    kept = [position for position, trial in enumerate(scanned.trials) if trial.subset == name]
    return name, replace(
        scanned,
        trials=tuple(scanned.trials[position] for position in kept),
        names=tuple(scanned.names[position] for position in kept),
    )
