"""Finds the folder in models/ of the run that is asked for: by the settings in its records, and only then by its name.

Earlier versions gave shorter names to some runs, and another learning rate to some detectors: those are found, too.
Looks at the disk, changes nothing, needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from training.checkpoints.record import CheckpointRecord
from training.runs.directory import RUNS_ROOT, RunDirectory
from training.runs.survey import RunFolder, newest_record, other_run_folders, survey_folder
from training.settings.changes import Change
from training.settings.identity import LENGTH, differences, possible_names
from training.settings.learning_rates import FORMER_DEFAULT, LAST_FORMAT_WITH_FORMER_DEFAULT
from training.settings.options import SETTINGS, Options
from training.settings.setting import OnChange

_MOST_CHANGES = 4
_MOST_NAMED = 6


@dataclass(frozen=True)
class Wanted:
    """The run that is asked for: its settings, and which of them were typed."""

    options: Options
    given: Set[str] = frozenset()

    def differs_from(self, record: CheckpointRecord) -> tuple[Change, ...]:
        """Return what makes the run of a checkpoint another one, its length left aside."""
        return differences(record.options, self.options, self.given)

    def may_have_former_rate(self) -> bool:
        """Whether an earlier version gave this run another learning rate, because none was typed."""
        return "lr" not in self.given and self.options.lr != FORMER_DEFAULT


@dataclass(frozen=True)
class NearRun:
    """A run that is not the one asked for: `changes` go from what it has to what is asked for."""

    folder: Path
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Found:
    """The folder of the run, the longest one of another length, and those that differ in little."""

    run: RunFolder
    other_length: RunFolder | None = None
    near: tuple[NearRun, ...] = ()


def find_run(wanted: Wanted) -> Found:
    """Look for the run under its own name first, then in every folder whose name a version gave to its settings."""
    run = survey_folder(RunDirectory.of(wanted.options).folder)
    if run.all_checkpoints or run.unusable:
        return Found(run)
    others = [(folder, record) for folder in other_run_folders(run.folder) if (record := newest_record(folder))]
    same = [(folder, record) for folder, record in others if is_asked_for(wanted, folder, record)]
    if own := [folder for folder, record in same if record.options.num_epochs == wanted.options.num_epochs]:
        return Found(max(map(survey_folder, own), key=_progress))
    longest = max((survey_folder(folder) for folder, _ in same), key=_progress, default=None)
    taken = {folder for folder, _ in same}
    return Found(run, longest, tuple(_near(wanted, [pair for pair in others if pair[0] not in taken])))


def is_asked_for(wanted: Wanted, folder: Path, record: CheckpointRecord) -> bool:
    """Whether a folder of models/ holds the run, of this length or another; `record` is one of its checkpoints."""
    options = record.options
    if options.comment != wanted.options.comment or folder.name not in possible_names(options):
        return False
    names = {change.name for change in wanted.differs_from(record)}
    return not names or (names == {"lr"} and has_former_rate(wanted, record, folder))


def has_former_rate(wanted: Wanted, record: CheckpointRecord, folder: Path) -> bool:
    """Whether a run was begun by a version in which its learning rate was the default, as it is asked for here."""
    if not wanted.may_have_former_rate() or record.options.lr != FORMER_DEFAULT:
        return False
    records = survey_folder(folder).all_checkpoints
    return any(record.format <= LAST_FORMAT_WITH_FORMER_DEFAULT for record in records)


def kept_folder(record: CheckpointRecord, options: Options) -> Path | None:
    """Return the folder in which a run stays that goes on from a checkpoint with `options`, as any version named it.

    None where its name changes with the settings, or where the checkpoint lies elsewhere.
    """
    same_name = (record.options.comment, record.options.num_epochs) == (options.comment, options.num_epochs)
    if not same_name or differences(record.options, options, set(SETTINGS)):
        return None
    folders = (RUNS_ROOT / name for name in possible_names(record.options))
    return next((folder for folder in folders if folder.is_dir() and folder.samefile(record.path.parent)), None)


def _progress(run: RunFolder) -> tuple[int, int]:
    return run.latest.position if run.latest else (-1, -1)


def _near(wanted: Wanted, others: list[tuple[Path, CheckpointRecord]]) -> Iterator[NearRun]:
    """Yield the runs that the one asked for could be a slip of, or go on from: the nearest ones, nearest first."""
    found = [NearRun(folder, changes_to(wanted, record)) for folder, record in others]
    near = (run for run in found if len(run.changes) <= _MOST_CHANGES and not any(map(_is_another_task, run.changes)))
    yield from sorted(near, key=lambda run: (len(run.changes), run.folder))[:_MOST_NAMED]


def changes_to(wanted: Wanted, record: CheckpointRecord) -> tuple[Change, ...]:
    """Return every difference that a person would name between a run and the one asked for."""
    pairs = ((name, getattr(record.options, name), getattr(wanted.options, name)) for name in (LENGTH, "comment"))
    return (*wanted.differs_from(record), *(Change(name, old, new) for name, old, new in pairs if old != new))


def _is_another_task(change: Change) -> bool:
    return change.name == "track" or SETTINGS[change.name].on_change is OnChange.REFUSED
