"""The demo corpus: whole or not there, the same every time, and told apart by the vocoder's trace alone."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora import Corpus, demo_corpus, find_corpus, find_evaluation_part
from utils.corpora.demo_corpus import demo_corpus_folder, demo_corpus_location
from utils.corpora.demo_signals import babble, draw_speaker, record
from utils.corpora.demo_vocoders import VOCODERS
from utils.errors import UserError
from utils.seeding import generator_at


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The whole corpus with a click for every utterance: who says what, without saying it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(demo_corpus, "_synthesise", lambda take: np.ones(10))
        return find_corpus(demo_corpus_folder())


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the demo corpus four utterances a part, in a cache of its own; returns where it will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _shrink(monkeypatch, num_utterances=4)
    return tmp_path / "bonafide" / "demo-v1"


def _shrink(monkeypatch: pytest.MonkeyPatch, num_utterances: int) -> None:
    parts = tuple(replace(part, num_utterances=num_utterances) for part in demo_corpus._PARTS)
    monkeypatch.setattr(demo_corpus, "_PARTS", parts)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_part_is_half_bona_fide(plan: Corpus) -> None:
    parts = (plan.train, plan.dev, find_evaluation_part(plan.folder))
    counts = [(part.protocol.num_bona_fide, part.protocol.num_spoof) for part in parts]
    assert counts == [(80, 80), (32, 32), (32, 32)]


def test_one_attack_is_in_the_evaluation_part_only(plan: Corpus) -> None:
    assert plan.train.protocol.attacks == plan.dev.protocol.attacks == ("D01", "D02", "D03")
    assert find_evaluation_part(plan.folder).protocol.attacks == ("D01", "D02", "D03", "D04")


def test_no_speaker_is_in_two_parts_and_each_has_both_classes(plan: Corpus) -> None:
    seen: set[str] = set()
    for part in (plan.train, plan.dev, find_evaluation_part(plan.folder)):
        bona_fide = {trial.speaker for trial in part.protocol.trials if trial.is_bona_fide}
        spoof = {trial.speaker for trial in part.protocol.trials if not trial.is_bona_fide}
        assert bona_fide == spoof
        assert not seen & spoof
        seen |= spoof


def test_a_spoof_has_speaker_level_and_length_of_its_bona_fide_counterpart() -> None:
    takes = sorted(demo_corpus._plan_takes(demo_corpus._PARTS[1]), key=lambda take: take.session)
    for one, other in zip(takes[:16:2], takes[1:16:2], strict=True):
        assert {one.trial.is_bona_fide, other.trial.is_bona_fide} == {True, False}
        assert one.trial.speaker == other.trial.speaker
        signals = [demo_corpus._synthesise(take) for take in (one, other)]
        assert 2.0 <= signals[0].size / SAMPLE_RATE_HZ <= 4.2
        assert signals[0].size == signals[1].size
        assert np.std(signals[0]) == pytest.approx(np.std(signals[1]), rel=0.01)


def test_making_it_twice_gives_the_same_bytes(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _digests(demo_corpus_folder())
    assert len(first) == 3 * 4 + 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.parents[1] / "again"))
    assert _digests(demo_corpus_folder()) == first


def test_it_is_made_once_and_then_found(small: Path) -> None:
    made = demo_corpus_folder()
    mark = made.stat().st_mtime_ns
    assert made == demo_corpus_location() == small == demo_corpus_folder()
    assert made.stat().st_mtime_ns == mark


def test_nothing_is_left_beside_it(small: Path) -> None:
    demo_corpus_folder()
    assert [path.name for path in small.parent.iterdir()] == ["demo-v1"]


def test_a_process_that_stops_half_way_leaves_no_corpus(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(demo_corpus, "_flush", stop)
        demo_corpus_folder()
    assert not small.exists()
    assert len(find_corpus(demo_corpus_folder()).train) == 4


def test_two_processes_at_once_share_the_corpus_of_the_first(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part = demo_corpus._write_part
    others: list[demo_corpus._DemoPart] = []

    def write_while_another_process_finishes(corpus: Path, part: demo_corpus._DemoPart) -> None:
        write_part(corpus, part)
        if part.name == "eval" and not others:
            others.append(part)
            demo_corpus_folder()

    monkeypatch.setattr(demo_corpus, "_write_part", write_while_another_process_finishes)
    assert len(find_evaluation_part(demo_corpus_folder())) == 4
    assert [path.name for path in small.parent.iterdir()] == ["demo-v1"]


def test_what_a_killed_process_left_an_hour_ago_is_removed(small: Path) -> None:
    old, young = small.parent / "demo-v1-making-old", small.parent / "demo-v1-making-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    demo_corpus_folder()
    assert not old.exists()
    assert young.exists()


def test_a_cache_that_cannot_be_written_is_refused_with_the_variable_to_set(small: Path) -> None:
    small.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"demo-v1.*XDG_CACHE_HOME"):
        demo_corpus_folder()


def test_a_relative_cache_variable_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert demo_corpus_location() == Path.home() / ".cache" / "bonafide" / "demo-v1"


@pytest.mark.parametrize("name", sorted(VOCODERS))
def test_a_vocoder_keeps_length_and_loudness_but_not_the_waveform(name: str) -> None:
    generator = generator_at("test", name)
    speech = babble(draw_speaker(generator), 40_000, generator)
    copy = VOCODERS[name](speech, generator)
    assert copy.shape == speech.shape
    assert 0.5 < np.sqrt((copy**2).mean()) < 2
    blocks = [10 * np.log10((signal.reshape(-1, 1600) ** 2).mean(axis=1) + 1e-2) for signal in (speech, copy)]
    assert np.corrcoef(blocks)[0, 1] > 0.9
    assert np.sqrt(((copy - speech) ** 2).mean()) > 0.1


def test_a_recording_stays_within_full_scale_whatever_it_hears() -> None:
    click = np.zeros(40_000)
    click[20_000] = 1.0
    assert np.abs(record(click, generator_at("test"))).max() <= 0.99
