"""Which folder --database_path means, and when the demo corpus is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_architecture import SOURCES, module_name
from training.data.database import database_folder, demo_to_make
from training.settings.data import DEMO_DATABASE


def test_demo_is_the_demo_corpus_and_anything_else_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    location = tmp_path / "bonafide" / "demo-v1"
    assert demo_to_make(DEMO_DATABASE) == location
    location.mkdir(parents=True)
    assert demo_to_make(DEMO_DATABASE) is None
    assert database_folder(DEMO_DATABASE) == location
    assert database_folder("/data/LA") == Path("/data/LA")
    assert demo_to_make("/data/LA") is None


def test_only_one_file_opens_the_demo_corpus() -> None:
    users = {module_name(path) for path in SOURCES if "demo_corpus_folder" in path.read_text(encoding="utf-8")}
    assert users == {"training.data.database", "utils.corpora.demo_corpus"}
