"""What the audio of a corpus is, wherever it lies: the names and sizes of all its files, and what is in some of them.

Sizes tell nearly every replacement, at the price of a question to the file system for each file; the contents of files
drawn by the seed tell one that keeps every size, such as the same recordings through another filter. Their decoded
samples tell a replacement from the same sound that was encoded anew. When a file was changed decides nothing: a copy of
a corpus is the same corpus, and a job may copy it at every start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from training.checkpoints.data_digests import AUDIO_SIZES, content_name, samples_name
from utils.audio.sample_digest import sample_digest
from utils.corpora import CorpusPart
from utils.many_files import ask_all
from utils.regular_files import open_regular
from utils.seeding import generator_at

NUM_DRAWN = 32
_DIGITS = 16
# Enough for nine minutes in 16 bits at 16 kHz; of longer files the beginning is compared.
_MOST_BYTES = 16 * 1024 * 1024


def audio_identity(parts: Sequence[CorpusPart], seed: int) -> dict[str, str]:
    """Return digests by name: one of all names and sizes, and of 32 files those of content and of decoded samples.

    The seed and the number of files alone say which files those are, and no random state is used. What cannot be asked
    for now has no digest, and training says what is wrong with it when it reads it.
    """
    named = [(part.name, trial.utterance) for part in parts for trial in part.protocol.trials]
    paths = [path for part in parts for path in part.audio_paths]
    found = {}
    sizes = ask_all(paths, _size)
    if None not in sizes:
        lines = "".join(f"{part} {name}\t{size}\n" for (part, name), size in zip(named, sizes, strict=True))
        found[AUDIO_SIZES] = _digest(lines.encode(errors="surrogateescape"))
    draw = generator_at("audio identity", seed).permutation(len(paths))[:NUM_DRAWN]
    drawn = sorted(int(index) for index in draw)
    contents = ask_all([paths[index] for index in drawn], _content)
    for index, (content, samples) in zip(drawn, contents, strict=True):
        name = content_name(*named[index])
        found |= {name: content} if content else {}
        found |= {samples_name(name): samples} if samples else {}
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _content(path: Path) -> tuple[str | None, str | None]:
    """Return the digests of a file's bytes and of its samples, None for what cannot be read."""
    try:
        with open_regular(path) as file:
            content = _digest(file.read(_MOST_BYTES))
    except OSError:
        return None, None
    samples = sample_digest(path)
    return content, samples[:_DIGITS] if samples else None
