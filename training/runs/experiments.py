"""Experiments: runs that lie in outputs/NAME/checkpoints/version_N, each new one under the next number.

The logs of version N lie in outputs/NAME/logs/version_N. Numbers begin with 0, and one that either place has is taken.
Looks at the disk, changes nothing, needs no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from training.runs.directory import (
    LOCK_NAME,
    LOGS_ROOT,
    OUTPUTS_ROOT,
    VERSIONS_NAME,
    is_version,
    version_number,
)
from training.runs.lock import is_let_go
from training.runs.mirror_place import mirror_of
from training.runs.own_folder import Wanted, find_run
from training.runs.survey import RunFolder, holds_checkpoints, survey_folder, versions_in
from training.runs.untrained import is_untrained
from training.settings.options import Options
from utils.folders import is_folder, readable_names_in


@dataclass(frozen=True)
class Experiment:
    """The run folders of one experiment, newest version first, and the one that a new run will have."""

    folders: tuple[Path, ...]
    next_folder: Path

    def folder_of(self, file: Path) -> Path | None:
        """Return the version's folder that a file lies in, however its path was typed; None where it is elsewhere."""
        return next((folder for folder in self.folders if folder.samefile(file.parent)), None)

    def newest_with_checkpoints(self) -> RunFolder | None:
        """Return the newest version that holds a checkpoint, damaged or not; None where none does."""
        surveyed = (survey_folder(folder) for folder in self.folders)
        return next((run for run in surveyed if run.all_checkpoints or run.unusable), None)

    def left_over(self) -> RunFolder | None:
        """Return the newest version if a start left it that ended before anything was saved; None where none did."""
        newest = next(iter(self.folders), None)
        number = version_number(self.next_folder.name)
        if newest is None or number is None or newest.name != f"version_{number - 1}":
            return None
        run = survey_folder(newest)
        return run if is_let_go(newest / LOCK_NAME) and is_untrained(run) else None


def find_experiment(name: str, mirror: str | None = None) -> Experiment:
    """Look which versions of an experiment there are; a number that its mirror has is taken, too."""
    root = OUTPUTS_ROOT / name / VERSIONS_NAME
    numbers = versions_in(root)
    taken = numbers | versions_in(OUTPUTS_ROOT / name / LOGS_ROOT.name)
    if mirror:
        taken |= versions_in(mirror_of(root / "version_0", Path(mirror)).parent)
    found = (root / f"version_{number}" for number in sorted(numbers, reverse=True))
    return Experiment(
        tuple(folder for folder in found if is_folder(folder)), root / f"version_{max(taken, default=-1) + 1}"
    )


def run_to_look_at(options: Options) -> RunFolder:
    """Return the run that the options name; of an experiment the newest version, one with checkpoints if there is."""
    if options.experiment is None:
        return find_run(Wanted(options)).run
    experiment = find_experiment(options.experiment)
    newest = next(iter(experiment.folders), experiment.next_folder.parent)
    return experiment.newest_with_checkpoints() or survey_folder(newest)


def other_versions(folder: Path) -> list[Path]:
    """Return the run folders of the other versions, where this one is a version of an experiment; by number."""
    if not is_version(folder):
        return []
    numbers = sorted(versions_in(folder.parent) - {version_number(folder.name)})
    found = (folder.with_name(f"version_{number}") for number in numbers)
    return [path for path in found if is_folder(path)]


def other_experiments(own: Path) -> list[Path]:
    """Return the newest version of each experiment but that of the run folder `own`, if it holds checkpoint files."""
    around = Path(os.path.realpath(own)).parents
    others = (
        name for name in readable_names_in(OUTPUTS_ROOT) if Path(os.path.realpath(OUTPUTS_ROOT / name)) not in around
    )
    newest = (folder for name in others for folder in find_experiment(name).folders[:1])
    return [folder for folder in newest if holds_checkpoints(folder)]
