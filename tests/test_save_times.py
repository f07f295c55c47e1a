"""When a save by time is due: the bound of --max_lost at every moment, and next to nothing where it was not typed."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from main import main
from tests.comparing import bits, differences
from tests.conftest import SMALL_RUN
from training.checkpoints.record import SAVED_BY_TIME
from training.loop.step import take_step
from training.planning.save_cost import COST_KEY, SaveCost
from training.runs.survey import survey_folder
from training.saving.save_times import LEAST_INTERVAL_S, SaveTimes
from training.saving.store import CheckpointStore
from training.settings.command_line import read_command
from utils.errors import UserError


def losses(times: SaveTimes, steps: Iterator[float], saves: Iterator[float], *, until: float) -> tuple[float, int]:
    """Return the longest time from a durable state to a moment before the next one was durable, and the saves begun.

    Steps and saves take what the iterators say; nothing else happens.
    """
    now = covered = worst = 0.0
    flight: tuple[float, float] | None = None  # when its state was taken, and when it is durable
    begun = 0
    times.start(now)
    while now < until:
        now += next(steps)
        if flight and flight[1] <= now:
            worst = max(worst, flight[1] - covered)
            covered = flight[0]
            times.ended(flight[1], 0.1)
            flight = None
        if times.is_due(now):
            times.begun(now)
            flight = now, now + next(saves)
            begun += 1
    return max(worst, now - covered), begun


def between(draw: random.Random, least: float, most: float) -> Iterator[float]:
    while True:
        yield draw.uniform(least, most)


# (bound, steps from and to, saves from and to, in seconds; bytes of the state; the most saves in 20 bounds)
HOURS = [
    (60.0, (0.3, 0.4), (1.0, 1.4), 10**8, 24),
    (60.0, (5.0, 7.0), (3.0, 4.0), 3 * 10**8, 34),
    (20.0, (0.01, 0.02), (0.02, 0.03), 10**6, 23),
    (300.0, (1.0, 1.4), (20.0, 28.0), 3 * 10**9, 26),
]


@pytest.mark.parametrize(("bound", "steps", "saves", "size", "most"), HOURS)
@pytest.mark.parametrize("seed", range(3))
def test_no_moment_loses_more_than_the_bound_and_saves_are_not_more_than_that_takes(
    bound: float, steps: tuple[float, float], saves: tuple[float, float], size: int, most: int, seed: int
) -> None:
    draw = random.Random(seed)
    worst, begun = losses(SaveTimes(bound, size), between(draw, *steps), between(draw, *saves), until=20 * bound)
    assert worst <= bound
    assert 20 <= begun <= most


def test_the_first_save_begins_early_enough_for_a_slow_disk_by_the_size_of_the_state() -> None:
    times = SaveTimes(60.0, state_bytes=3_800_000_000)  # 38 s at 100 MB/s
    times.start(0.0)
    assert [at for at in range(1, 20) if times.is_due(at)] == [17, 18, 19]


def test_what_a_save_took_in_an_earlier_process_is_known_to_the_next_one() -> None:
    times = SaveTimes(60.0, state_bytes=3_800_000_000, known=SaveCost(2.0, 0.5))
    times.start(0.0)
    assert not times.is_due(50.0, ahead=0.5)


def test_one_save_is_under_way_at_a_time() -> None:
    times = SaveTimes(1.0)
    times.start(0.0)
    times.begun(2.0)
    assert not times.is_due(100.0)


def test_after_a_refusal_the_next_try_waits_as_long_as_the_bound() -> None:
    times = SaveTimes(10.0)
    times.start(0.0)
    assert times.is_due(9.5)
    times.begun(9.5)
    times.ended(None)
    assert [times.is_due(at) for at in (9.6, 15.0, 19.6)] == [False, False, True]


# (seconds of the clock, of training that a save costs, until a save by steps or epochs, whether one is due: why)
UNTYPED = [
    (LEAST_INTERVAL_S - 1, 0.1, math.inf, False, "not ten minutes yet"),
    (LEAST_INTERVAL_S, 0.1, math.inf, True, "ten minutes"),
    (LEAST_INTERVAL_S, 0.1, 100.0, False, "one by steps comes soon"),
    (LEAST_INTERVAL_S, 0.1, 200.0, True, "one by steps comes, but not soon"),
    (LEAST_INTERVAL_S * 1.25, 0.1, 100.0, True, "what was to come soon did not"),
    (1199.0, 12.0, math.inf, False, "it would cost more than 1 %"),
    (1200.0, 12.0, math.inf, True, "it costs 1 %"),
]


@pytest.mark.parametrize(("now", "cost", "next_in", "due", "why"), UNTYPED, ids=[row[-1] for row in UNTYPED])
def test_without_a_bound_a_save_is_rare_and_cheap(now: float, cost: float, next_in: float, due: bool, why: str) -> None:
    times = SaveTimes(known=SaveCost(1.0, cost))
    times.start(0.0)
    assert times.is_due(now, next_in) is due, why


def test_none_is_due_where_nothing_asks_for_saves_within_epochs() -> None:
    times = SaveTimes(is_off=True)
    times.start(0.0)
    assert not times.is_due(1e9)


def test_before_a_validation_of_unknown_length_the_bound_asks_for_a_save() -> None:
    times = SaveTimes(60.0)
    times.start(0.0)
    assert not times.is_due(5.0)
    assert times.is_due(5.0, ahead=math.inf)
    assert not SaveTimes().is_due(5.0, ahead=math.inf)


def test_what_the_bound_costs_is_told_once_and_again_when_it_cannot_hold() -> None:
    times = SaveTimes(60.0)
    times.start(0.0)
    assert times.news(10**9) == ""
    for at, seconds in ((50.0, 2.0), (100.0, 2.0), (150.0, 40.0)):
        times.begun(at)
        times.ended(at + seconds, 0.27)
        told = times.news(10**9)
        if at == 50.0:
            assert told == "--max_lost 60 s: a save every 54 s, which takes 0.5 % of training and writes 1.6 TB a day"
        elif at == 100.0:
            assert told == ""
        else:
            assert "--max_lost 60 s cannot hold: a save takes 40 s until it is on disk" in told
            assert "The best possible is 80 s" in told


@pytest.mark.parametrize(("typed", "seconds"), [("60s", 60), ("5m", 300), ("1h", 3600), ("20", 20), ("1.5 m", 90)])
def test_a_bound_is_typed_as_a_time(typed: str, seconds: float, tmp_path: Path) -> None:
    assert read_command(["--max_lost", typed]).options.max_lost == seconds  # type: ignore[union-attr]
    (tmp_path / "a.yaml").write_text(f"checkpoint:\n  max_lost: {typed}\n")
    assert read_command(["--config", str(tmp_path / "a.yaml")]).options.max_lost == seconds  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("0", "--max_lost must be above 0, found 0"),
        ("-5s", "--max_lost must be above 0, found -5"),
        ("soon", "--max_lost: must be a time such as 60s, 5m or 1h, found 'soon'"),
        ("inf", "--max_lost must be a finite number"),
    ],
)
def test_a_bound_that_is_no_time_is_refused(typed: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        read_command([f"--max_lost={typed}"])
    assert words in str(refused.value)


@pytest.mark.parametrize("stored", [None, {}, {"seconds": 1.0}, {"seconds": "1", "cost_seconds": 0.1}, [1.0, 2.0]])
def test_a_cost_that_makes_no_sense_is_not_known(stored: object) -> None:
    assert SaveCost.from_dict(stored) is None


def test_a_run_with_saves_by_time_keeps_two_of_them_has_the_same_bits_and_says_what_they_cost(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ends = []
    for name, flags in (("plain", []), ("timed", ["--max_lost", "0.001s"])):
        typed = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "2", "--save_interval", "4"]
        assert main([*typed, "--sync_save", "--comment", name, *flags]) == 0
        (folder,) = (tmp_path / "models").glob(f"*_{name}")
        ends.append((survey_folder(folder), folder / f"checkpoint_epoch_2_{name}.pth"))
    (plain, one), (timed, other) = ends
    assert not any(record.saved_by_time for record in plain.checkpoints)
    assert [r.step for r in timed.checkpoints if r.saved_by_time] == [5, 6]
    assert [r.step for r in timed.checkpoints if not r.saved_by_time] == [r.step for r in plain.checkpoints]
    assert SaveCost.from_dict(timed.checkpoints[-1].metadata[COST_KEY])
    assert not differences(bits(one), bits(other))
    said = capsys.readouterr().out
    assert "saves:       at most 0.001 s of work are lost (--max_lost); what that costs is said after the first" in said
    assert "[NOTE] --max_lost 0.001 s cannot hold: a save takes" in said
    assert SAVED_BY_TIME in timed.checkpoints[0].metadata


def test_a_disk_that_does_not_answer_for_a_while_holds_up_no_step(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save after the first step ends only when two more steps are made; a loop that waits for it gives it up."""
    monkeypatch.chdir(tmp_path)
    steps = threading.Semaphore(0)
    answered: list[bool] = []
    save, step = CheckpointStore.save, take_step

    def slow(*arguments: Any) -> Path:
        if not answered:
            answered.append(all(steps.acquire(timeout=60) for _ in range(3)))
        return save(*arguments)

    def counted(*arguments: Any) -> Any:
        result = step(*arguments)
        steps.release()
        return result

    monkeypatch.setattr(CheckpointStore, "save", slow)
    monkeypatch.setattr("training.loop.trainer.take_step", counted)
    typed = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "1", "--max_lost", "0.001s"]
    assert main(typed) == 0
    assert answered == [True]


def test_the_state_of_saves_says_for_how_long_one_is_awaited() -> None:
    times = SaveTimes(60.0)
    times.start(0.0)
    assert times.state(1.0) == ""
    times.begun(10.0)
    assert times.state(70.0) == "One is under way for 60 s."
    times.ended(72.0)
    assert times.state(80.0) == "A save takes up to 62 s until it is on disk."
