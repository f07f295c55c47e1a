"""The page of a long run: thinned to a bounded length, with ends, extremes, gaps and the best epoch kept."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from tests.html_pages import Page, read
from tests.small_state import OPTIONS
from tests.test_growth import long_history
from training.checkpoints.history import History
from training.reports.page.rendering import report_html
from training.reports.page.thinning import Thinned
from training.reports.story import Story
from training.runs.survey import RunFolder

RUN = Path("models/run")


def values(number: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.choice([math.nan, draw.gauss(0, 1), float(draw.randrange(3))]) for _ in range(number)]


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 16, 17, 63, 200, 1001])
def test_a_thinned_curve_has_its_ends_extremes_and_gaps_whenever_it_was_looked_at(number: int) -> None:
    every = values(number, seed=number)
    grown, at_once = Thinned[float](float, 4), Thinned[float](float, 4)
    for length in sorted([*random.Random(1).sample(range(number + 1), min(number, 9)), number]):
        kept = grown.rows(every[:length])
    assert list(map(id, kept)) == list(map(id, at_once.rows(every)))
    assert len(kept) <= 5 * 4
    if every:
        finite = [value for value in every if math.isfinite(value)]
        assert (id(kept[0]), id(kept[-1])) == (id(every[0]), id(every[-1]))
        assert not finite or {min(finite), max(finite)} <= set(kept)
        assert any(map(math.isnan, kept)) == any(map(math.isnan, every))


def test_rows_that_were_looked_at_are_not_looked_at_again() -> None:
    looked: list[float] = []

    def value(row: float) -> float:
        looked.append(row)
        return row

    thinned, every = Thinned(value, 64), [float(number) for number in range(10_000)]
    thinned.rows(every)
    looked.clear()
    thinned.rows([*every, 1.0])
    assert len(looked) < 2 * 10_000 / 64


def page_of(history: History) -> Page:
    return read(report_html(Story(OPTIONS, history), RunFolder(RUN), None, written_at=0.0))


def test_the_page_of_a_long_run_is_short_and_shows_extremes_the_newest_and_exactly_the_best() -> None:
    shorter, longer = page_of(long_history(300, 1500)), page_of(long_history(1200, 6000))
    for page, last in ((shorter, 300), (longer, 1200)):
        epochs, steps = page.values("data-epoch"), page.values("data-step")
        assert len(epochs) + len(steps) <= 200 + 100 + 1
        assert (epochs[0], epochs.count("7")) == (str(last), 1)
        (best,) = [element for element in page.elements if element.attributes.get("data-epoch") == "7"]
        assert best.attributes["class"] == "epoch best"
        titles = [element.text for element in page.elements if element.tag == "title"]
        assert titles.count("best epoch 7: 2") == 1
        assert [title for title in titles if title.endswith(": 49.5")] == ["validation, epoch 6.1: 49.5"]
        assert "these are the newest 200, the best epoch" in page.elements[0].text
        assert "Long curves are thinned" in page.elements[0].text
    drawn = [sum(e.tag in ("circle", "tr", "polyline") for e in page.elements) for page in (shorter, longer)]
    assert drawn[1] < 1.2 * drawn[0]
