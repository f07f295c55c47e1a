"""Random damage to the files of a real run: each is reported, none loads, auto-resume takes the newest good one."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.damaging import DAMAGES, Victim, draw_file, make_victims, outcome_of

TIMES_EACH = 50


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Victim]]:
    folder, before = tmp_path_factory.mktemp("damage"), Path.cwd()
    os.chdir(folder)
    yield make_victims(folder)
    os.chdir(before)


def test_the_files_to_damage_are_of_every_kind(victims: list[Victim]) -> None:
    kinds = {file.what for victim in victims for file in victim.files}
    assert kinds >= {"epoch", "step", "weights", "epoch, format 1", "step, format 1", "weights, format 1"}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_reported_never_loaded_and_passed_over_by_auto_resume(victims: list[Victim], kind: str) -> None:
    draw = random.Random(kind)
    for number in range(TIMES_EACH):
        victim, file = draw_file(victims, draw)
        found = outcome_of(victim, file, DAMAGES[kind](file.names[0].read_bytes(), draw))
        assert found.is_as_promised, f"number {number}, {file.names[0].name}: {found}"
