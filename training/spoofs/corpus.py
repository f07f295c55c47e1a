"""The bona fide speech of every part of a corpus, as it is copied through vocoders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.database import corpus_place
from training.settings.options import Options
from training.spoofs.layout import Utterance, utterances_of
from utils.corpora.finding import find_all_layouts
from utils.corpora.parts import PartSource, open_part
from utils.corpora.trials import ScannedProtocol
from utils.corpora.utterance_files import AudioFiles
from utils.errors import UserError


@dataclass(frozen=True)
class SourceCorpus:
    """Where a corpus lies, what tells it from others (the content hashes of its parts' protocols), and its utterances.

    `notes` say which parts were left out, and why.
    """

    folder: Path
    layout: str
    identity: dict[str, str]
    utterances: Sequence[Utterance]
    notes: tuple[str, ...] = ()


def open_sources(options: Options, folder: Path) -> SourceCorpus:
    """Find the bona fide files of a corpus, all of which must be there; `folder` is where the spoofs go.

    Raises UserError as training does, and where there is no bona fide speech or `folder` lies within the corpus.
    """
    place = corpus_place(options)
    if _is_within(folder, place.database):
        raise UserError(f"--make_spoofs {folder} lies within the corpus {place.database}: pass a folder outside of it")
    found = find_all_layouts(*place, needs_spoofs=False)[0]
    identity: dict[str, str] = {}
    utterances: list[Utterance] = []
    notes = []
    for source in found.parts:
        scanned = source.scan().heard_for_speech()
        scanned.protocol()
        bona_fide = _bona_fide_of(scanned)
        if why := _why_left_out(source, bona_fide):
            notes.append(f"[NOTE] No spoofs of the {source.name} part: {why}")
            continue
        part = open_part(source, found.layout, bona_fide)
        identity[source.name] = part.protocol.content_sha256
        utterances += utterances_of(part)
    if not utterances:
        raise UserError(
            f"--database_path {place.database} has no bona fide speech to make spoofs of"
            + (f" ({'; '.join(note.removeprefix('[NOTE] ') for note in notes)})" if notes else "")
            + ": pass a corpus that has some"
        )
    return SourceCorpus(found.folder, found.layout, identity, utterances, tuple(notes))


def _bona_fide_of(scanned: ScannedProtocol) -> ScannedProtocol:
    kept = [index for index, trial in enumerate(scanned.trials) if trial.is_bona_fide]
    return replace(
        scanned,
        trials=tuple(scanned.trials[index] for index in kept),
        names=tuple(scanned.names[index] for index in kept),
    )


def _why_left_out(source: PartSource, bona_fide: ScannedProtocol) -> str:
    if not bona_fide.trials:
        return f"{bona_fide.path} names no bona fide utterance"
    unlistable = AudioFiles(source.audio_folders).unlistable() if source.name == "eval" else None
    return f"{unlistable[0]} cannot be listed ({unlistable[1]})" if unlistable else ""


def _is_within(folder: Path, corpus: Path) -> bool:
    inner, outer = Path(os.path.realpath(folder)), Path(os.path.realpath(corpus))
    return inner == outer or outer in inner.parents
