"""The demo corpus: made by the program itself on first use, so that it can be tried without any data.

It is a stand-in and proves nothing about real deepfakes: its bona fide side is synthetic babble
(demo_signals.py), its spoof side such babble through simple vocoders (demo_vocoders.py). A detector that
tells them apart has shown that the program trains, and no more. Level, noise, room and length
are the same for a bona fide utterance and its spoof counterpart, so that they tell nothing.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.corpora import PROTOCOL_FILES, PROTOCOLS_FOLDER, PartName, audio_folder
from utils.corpora.protocols import NO_ATTACK, Trial
from utils.errors import UserError
from utils.seeding import generator_at

if TYPE_CHECKING:
    from utils.corpora.demo_signals import Signal

_VERSION = "demo-v1"
_SECONDS = (2.0, 4.2)
_ABANDONED_AFTER_S = 3600


@dataclass(frozen=True)
class _Take:
    """A trial and the session it was recorded in: one length, room, noise and level for a bona fide and a spoof."""

    trial: Trial
    session: str


@dataclass(frozen=True)
class _DemoPart:
    """How many utterances a part has, half of them bona fide, and which speakers and attacks."""

    name: PartName
    num_utterances: int
    speakers: range
    attacks: tuple[str, ...]


_PARTS = (
    _DemoPart("train", 160, range(1, 11), ("D01", "D02", "D03")),
    _DemoPart("dev", 64, range(11, 15), ("D01", "D02", "D03")),
    _DemoPart("eval", 64, range(15, 19), ("D01", "D02", "D03", "D04")),
)


def demo_corpus_location() -> Path:
    """Return where the demo corpus is or will be: `bonafide/demo-v1` in $XDG_CACHE_HOME or else in ~/.cache.

    A relative $XDG_CACHE_HOME does not count (XDG Base Directory Specification 0.8).
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "bonafide" / _VERSION


def demo_corpus_folder() -> Path:
    """Return the demo corpus, an ASVspoof 2019 LA folder; the first call makes it, in some seconds.

    It is written beside its place, flushed to disk, and moved there by one rename, so that a killed process, a power
    cut or two processes at once leave the whole corpus or none. The same machine and libraries make the same bytes.
    Raises UserError where the cache folder cannot be written.
    """
    folder = demo_corpus_location()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        _make(folder)
    except OSError as error:
        raise UserError(
            f"the demo corpus cannot be written to {folder} ({error.strerror}): make room there, or set XDG_CACHE_HOME "
            "to a folder that can be written"
        ) from error
    return folder


def _make(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{_VERSION}-making-", dir=folder.parent) as unfinished:
        corpus = Path(unfinished) / _VERSION
        (corpus / PROTOCOLS_FOLDER).mkdir(parents=True)
        for part in _PARTS:
            _write_part(corpus, part)
        try:
            corpus.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has just made the same corpus
                raise
    _flush(folder.parent)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed process left long ago; a younger folder may be one that is being written."""
    for unfinished in folder.parent.glob(f"{_VERSION}-making-*"):
        if unfinished.stat().st_mtime < time.time() - _ABANDONED_AFTER_S:
            shutil.rmtree(unfinished, ignore_errors=True)


def _write_part(corpus: Path, part: _DemoPart) -> None:
    takes = tuple(_plan_takes(part))
    flac_folder = audio_folder(corpus, part.name)
    flac_folder.mkdir(parents=True)
    for take in takes:
        flac = io.BytesIO()
        soundfile.write(flac, _synthesise(take), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        _write_file(flac_folder / f"{take.trial.utterance}.flac", flac.getvalue())
    lines = [_protocol_line(take.trial) for take in takes]
    _write_file(corpus / PROTOCOLS_FOLDER / PROTOCOL_FILES[part.name], "".join(lines).encode())
    for written in (flac_folder, flac_folder.parent, corpus / PROTOCOLS_FOLDER, corpus):
        _flush(written)


def _protocol_line(trial: Trial) -> str:
    key = "bonafide" if trial.is_bona_fide else "spoof"
    return f"{trial.speaker} {trial.utterance} - {trial.attack} {key}\n"


def _plan_takes(part: _DemoPart) -> Iterator[_Take]:
    """Half bona fide, half spoof; every session, and so every speaker, has both; the order tells nothing."""
    half = part.num_utterances // 2
    for number, slot in enumerate(generator_at(_VERSION, part.name).permutation(part.num_utterances), start=1):
        turn = int(slot) % half
        is_bona_fide = int(slot) < half
        trial = Trial(
            speaker=f"DEMO_{part.speakers[turn % len(part.speakers)]:02d}",
            utterance=f"DEMO_{part.name[0].upper()}_{number:04d}",
            attack=NO_ATTACK if is_bona_fide else part.attacks[turn % len(part.attacks)],
            is_bona_fide=is_bona_fide,
        )
        yield _Take(trial, session=f"{part.name} {turn}")


def _synthesise(take: _Take) -> Signal:
    from utils.corpora.demo_signals import babble, draw_speaker, record  # noqa: PLC0415  (0.5 s, for scipy.signal)
    from utils.corpora.demo_vocoders import VOCODERS  # noqa: PLC0415

    generator = generator_at(_VERSION, "utterance", take.trial.utterance)
    session = generator_at(_VERSION, "session", take.session)
    speaker = draw_speaker(generator_at(_VERSION, "speaker", take.trial.speaker))
    num_samples = int(session.uniform(*_SECONDS) * SAMPLE_RATE_HZ)
    speech = babble(speaker, num_samples, generator)
    if not take.trial.is_bona_fide:
        speech = VOCODERS[take.trial.attack](speech, generator)
    return record(speech, session)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
