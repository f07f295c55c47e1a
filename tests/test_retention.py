"""What stays of a run's checkpoints, as tables with the reason on each row, and what no policy ever takes away."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.records import STEPS_PER_EPOCH, metrics, record
from tests.records import validated as a_validation
from training.checkpoints.record import SAVED_BY_TIME, CheckpointRecord, Kind
from training.checkpoints.rows import EpochMetrics
from training.runs.directory import RunDirectory
from training.runs.retention import RetentionPolicy, files_to_prune, own_records, retained
from training.settings.options import Options

RUN = RunDirectory(Path("models/run"))
LINEAGE = (("run-a", 0),)


def epoch(number: int, **changes: object) -> CheckpointRecord:
    path = RUN.epoch_checkpoint(number)
    return replace(record(path, number, name=path.name), **changes)  # type: ignore[arg-type]


def step(number: int, **changes: object) -> CheckpointRecord:
    """Return a step checkpoint; at a multiple of ten the epoch's last step is done and its validation is not."""
    completed = (number - 1) // STEPS_PER_EPOCH
    path = RUN.folder / f"checkpoint_step_{number}.pth"
    batches_done = number - completed * STEPS_PER_EPOCH
    return replace(record(path, completed, batches_done=batches_done, name=path.name), **changes)  # type: ignore[arg-type]


def short(path: Path) -> str:
    """Return e3 for checkpoint_epoch_3.pth and s24 for checkpoint_step_24.pth."""
    _, kind, number = path.stem.split("_")
    return kind[0] + number


def files(text: str) -> list[CheckpointRecord]:
    """Return the checkpoints that `short` writes so."""
    return [(epoch if word[0] == "e" else step)(int(word[1:])) for word in text.split()]


KEEP_3 = RetentionPolicy(keep_last_n=3)
KEEP_1 = RetentionPolicy(keep_last_n=1)
EVERY_5 = RetentionPolicy(save_freq=5)
BEST_ONLY = RetentionPolicy(save_best_only=True)
TWELVE = " ".join(f"e{number}" for number in range(1, 13))

# (the files, the policy, the best epoch, what stays: why)
TABLE: list[tuple[str, RetentionPolicy, int | None, str]] = [
    ("", RetentionPolicy(), None, ""),
    ("e1", RetentionPolicy(), 1, "e1: the furthest"),
    ("e1 e2 e3", RetentionPolicy(), 1, "e1: the best epoch, e2: every epoch stays, e3: the furthest"),
    ("e1 e2 s24", RetentionPolicy(), 1, "e1: the best epoch, e2: every epoch stays, s24: the furthest"),
    (
        "s1 s2 s3 s4 s5 s6",
        RetentionPolicy(),
        None,
        "s2: one of the last 5 steps, s3: one of the last 5 steps, s4: one of the last 5 steps, "
        "s5: one of the last 5 steps, s6: the furthest",
    ),
    (  # step files count by themselves; an epoch is past its own last step
        "s4 s8 e1 s14 s16 s18 s20 e2",
        RetentionPolicy(),
        1,
        "s8: one of the last 5 steps, e1: the best epoch, s14: one of the last 5 steps, s16: one of the last 5 steps, "
        "s18: one of the last 5 steps, s20: one of the last 5 steps, e2: the furthest",
    ),
    (
        "e1 e2 e3 e4 e5",
        KEEP_3,
        1,
        "e1: the best epoch, e3: one of the last 3 epochs, e4: one of the last 3 epochs, e5: the furthest",
    ),
    ("e1 e2", KEEP_3, 2, "e1: one of the last 3 epochs, e2: the furthest"),
    ("e1 e2 e3", KEEP_1, 3, "e3: the furthest"),
    (  # N of each kind
        "s2 s4 s6 s8 e1 s12 e2 e3 e4 s42",
        KEEP_3,
        4,
        "s8: one of the last 3 steps, s12: one of the last 3 steps, e2: one of the last 3 epochs, "
        "e3: one of the last 3 epochs, e4: the best epoch, s42: the furthest",
    ),
    # A kill within an epoch leaves the furthest state in a step file.
    ("e1 e2 s24", KEEP_1, 1, "e1: the best epoch, e2: one of the last 1 epochs, s24: the furthest"),
    ("e1 e2 s24", KEEP_1, None, "e2: one of the last 1 epochs, s24: the furthest"),
    # Killed between the last step of an epoch and the end of its validation; resumed, validated.
    ("e1 s20", KEEP_1, 1, "e1: the best epoch, s20: the furthest"),
    ("e1 s20 e2", KEEP_1, 2, "s20: one of the last 1 steps, e2: the furthest"),
    (
        TWELVE,
        EVERY_5,
        7,
        "e5: a multiple of 5 epochs, e7: the best epoch, e10: a multiple of 5 epochs, e12: the furthest",
    ),
    ("e5 e6 e7 s73", EVERY_5, 5, "e5: the best epoch, s73: the furthest"),
    (
        TWELVE,
        RetentionPolicy(save_freq=5, keep_last_n=2),
        1,
        "e1: the best epoch, e5: a multiple of 5 epochs, e10: a multiple of 5 epochs, e11: one of the last 2 epochs, "
        "e12: the furthest",
    ),
    (
        TWELVE,
        RetentionPolicy(milestones=(2, 10, 50), keep_last_n=1),
        3,
        "e2: a milestone, e3: the best epoch, e10: a milestone, e12: the furthest",
    ),
    (TWELVE, RetentionPolicy(6, (6,), 1), 6, "e6: the best epoch, e12: the furthest"),
    (TWELVE, RetentionPolicy(6, (6,), 1), 12, "e6: a milestone, e12: the furthest"),
    (  # milestones are epochs, never steps
        "s7 s24",
        RetentionPolicy(milestones=(7,), keep_last_n=1),
        None,
        "s24: the furthest",
    ),
    ("e1 e2 s24", BEST_ONLY, 1, ""),
    ("e1 e2 s24", RetentionPolicy(2, (1,), 9, save_best_only=True), 1, ""),
]


def reasons(text: str) -> dict[str, str]:
    """Return what the last column of the table says."""
    return dict(part.split(": ") for part in text.split(", ")) if text else {}


@pytest.mark.parametrize(("there", "policy", "best", "expected"), TABLE)
def test_what_stays_is_the_union_of_the_rules(
    there: str, policy: RetentionPolicy, best: int | None, expected: str
) -> None:
    kept = retained(files(there), policy, metrics(best) if best else None)
    assert {short(path): why for path, why in kept.items()} == reasons(expected)


@pytest.mark.parametrize(("there", "policy", "best", "expected"), TABLE)
def test_what_does_not_stay_is_pruned_oldest_first(
    there: str, policy: RetentionPolicy, best: int | None, expected: str
) -> None:
    """Also where the folder was listed in another order."""
    records = files(there)
    random.Random(1).shuffle(shuffled := list(records))
    pruned = files_to_prune(shuffled, LINEAGE, policy, metrics(best) if best else None)
    assert list(map(short, pruned)) == [word for word in there.split() if word not in reasons(expected)]


COPY = Path("models/run/precious.pth")
# (a record that lies in the folder beside epochs 1 to 3, what it is)
NOT_OURS: list[tuple[CheckpointRecord, str]] = [
    (epoch(1, path=COPY), "a copy that a user renamed"),
    (epoch(1, name=""), "of format 1, which does not say its name"),
    (epoch(1, lineage=(("run-b", 0),)), "of another run"),
    (epoch(3, lineage=(("run-a", 0), ("run-c", 20))), "of another future of this run"),
    (epoch(1, path=RUN.best_checkpoint, name=RUN.best_checkpoint.name), "under the best name"),
    (epoch(1, path=RUN.last_checkpoint, name=RUN.last_checkpoint.name), "under the last name"),
    (epoch(1, path=RUN.last_checkpoint), "a link: the last name for a file of an epoch"),
    (epoch(1, path=RUN.best_weights, name=RUN.best_weights.name), "under the name of the weights"),
    (epoch(1, kind=Kind.WEIGHTS), "weights alone"),
]


@pytest.mark.parametrize(("found", "what"), NOT_OURS)
@pytest.mark.parametrize("policy", [KEEP_1, BEST_ONLY])
def test_what_the_run_did_not_write_under_that_name_is_never_touched(
    found: CheckpointRecord, what: str, policy: RetentionPolicy
) -> None:
    assert files_to_prune([found, epoch(12)], LINEAGE, policy, metrics(12)) == (
        [epoch(12).path] if policy.save_best_only else []
    ), what


def test_a_renamed_copy_does_not_count_among_the_last() -> None:
    """Nor as the furthest: what the rules keep are files that the program can tell to be its own."""
    copy = epoch(3, path=COPY)
    pruned = files_to_prune([epoch(1), epoch(2), epoch(3), copy], LINEAGE, RetentionPolicy(keep_last_n=2), None)
    assert list(map(short, pruned)) == ["e1"]


def test_what_a_run_shares_with_the_one_it_left_is_its_own() -> None:
    """Resumed from epoch 2 under a new id: epochs 1 and 2 are its past, the old epoch 3 is not."""
    resumed = (("run-a", 0), ("run-b", 20))
    old = [epoch(1), epoch(2), epoch(3)]
    new = [epoch(number, lineage=resumed) for number in (4, 5)]
    assert [short(made.path) for made in own_records([*old, *new], resumed)] == ["e1", "e2", "e4", "e5"]
    pruned = files_to_prune([*old, *new], resumed, KEEP_1, metrics(4))
    assert list(map(short, pruned)) == ["e1", "e2"]


def test_a_checkpoint_saved_before_the_first_step_is_of_the_run_that_saved_it() -> None:
    first = step(1, step=0, epoch=0, batches_done=0)
    assert own_records([first], LINEAGE) == [first]
    assert own_records([first], (("run-b", 0),)) == []


def test_the_file_that_a_process_was_started_from_is_a_checkpoint_like_others() -> None:
    """It is needed until the next one is durable, which is when files are pruned; it used to stay for good."""
    assert files_to_prune([epoch(1), epoch(2)], LINEAGE, KEEP_1, None) == [epoch(1).path]
    assert files_to_prune([epoch(1), step(12)], LINEAGE, BEST_ONLY, metrics(1)) == [epoch(1).path, step(12).path]


def test_the_policy_is_what_the_flags_say() -> None:
    typed = Options(save_freq=2, milestones=(25, 10), keep_last_n=4, save_best_only=True)
    assert RetentionPolicy.of(typed) == RetentionPolicy(2, (10, 25), 4, save_best_only=True)
    assert RetentionPolicy.of(Options()) == RetentionPolicy()


POLICIES = [
    RetentionPolicy(save_freq, milestones, keep_last_n, save_best_only)
    for save_freq, milestones, keep_last_n, save_best_only in itertools.product(
        (1, 2, 7), ((), (3,), (1, 4, 9)), (None, 1, 3), (False, True)
    )
]


@cache
def histories() -> Sequence[tuple[list[CheckpointRecord], EpochMetrics | None]]:
    """Return a hundred folders as trainings leave them that are killed and resumed at random."""
    chance = random.Random(20260301)
    made = []
    for _ in range(100):
        steps = sorted(chance.sample(range(1, 130), chance.randrange(1, 25)))
        epochs = range(1, steps[-1] // STEPS_PER_EPOCH + 1)
        there = [epoch(number) for number in epochs if chance.random() < 0.8]
        there += [step(number) for number in steps]
        chance.shuffle(there)
        made.append((there, metrics(chance.choice(epochs)) if epochs else None))
    return made


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_no_policy_takes_the_furthest_or_the_best(policy: RetentionPolicy) -> None:
    for there, best in histories():
        pruned = set(files_to_prune(there, LINEAGE, policy, best))
        furthest = max(there, key=lambda made: made.position)
        best_file = [made.path for made in there if made.kind is Kind.EPOCH and best and made.epoch == best.epoch]
        if not policy.save_best_only:
            assert not pruned & {furthest.path, *best_file}


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_pruning_again_takes_nothing_more(policy: RetentionPolicy) -> None:
    for there, best in histories():
        pruned = set(files_to_prune(there, LINEAGE, policy, best))
        left = [made for made in there if made.path not in pruned]
        assert files_to_prune(left, LINEAGE, policy, best) == []


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_every_reason_is_given_and_every_other_file_goes(policy: RetentionPolicy) -> None:
    for there, best in histories():
        kept = retained(there, policy, best)
        pruned = files_to_prune(there, LINEAGE, policy, best)
        assert all(kept.values())
        assert sorted([*kept, *pruned]) == sorted(made.path for made in there)


def test_of_two_checkpoints_of_one_step_the_validated_one_stays_and_they_count_as_one() -> None:
    """A run that is stopped between a step and its validation saves that step again once it is validated."""
    figures = a_validation(step=3, epoch=0)
    named = RUN.folder / "s003-eer_5.00.ckpt"
    validated = step(3, path=named, name=named.name, validated=figures)
    records = [*files("s1 s2 s3 s4"), validated]
    kept = retained(records, RetentionPolicy(keep_last_n=2), None)
    assert sorted(path.name for path in kept) == ["checkpoint_step_4.pth", named.name]
    kept = retained([*files("s2 s3"), validated], KEEP_1, None)
    assert [path.name for path in kept] == [named.name]


def by_time(number: int) -> CheckpointRecord:
    return step(number, metadata={SAVED_BY_TIME: True})


# (the files by steps, those by time, the policy, what stays of those by time)
BY_TIME = [
    ("", "s1 s2 s3", RetentionPolicy(), "s2 s3"),
    ("s4 s5 s6 s7 s8", "s1 s2 s3", RetentionPolicy(), "s2 s3"),
    ("s4 s5 s6", "s1 s2 s3", KEEP_1, "s2 s3"),
    ("e1 e2 e3", "s11 s12", KEEP_1, "s11 s12"),
    ("", "s9", RetentionPolicy(), "s9"),
    ("s4", "s1 s2 s3", BEST_ONLY, ""),
]


@pytest.mark.parametrize(("steps", "timed", "policy", "stays"), BY_TIME)
def test_of_saves_by_time_the_last_two_stay_apart_from_what_the_flags_keep(
    steps: str, timed: str, policy: RetentionPolicy, stays: str
) -> None:
    ours = [by_time(int(word[1:])) for word in timed.split()]
    kept = {short(path) for path in retained([*files(steps), *ours], policy, None)}
    assert kept & set(timed.split()) == set(stays.split())
    others = {short(path) for path in retained(files(steps), policy, None)}
    assert kept - set(timed.split()) == others or policy is BEST_ONLY


def test_a_file_of_an_earlier_version_counts_as_one_by_steps() -> None:
    assert not step(3, metadata={}).saved_by_time
    assert not step(3, metadata={SAVED_BY_TIME: "yes"}).saved_by_time
