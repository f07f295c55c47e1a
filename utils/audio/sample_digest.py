"""What an audio file sounds like, as a digest of its decoded samples: one for all lossless ways to encode them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import soundfile

from utils.regular_files import is_regular

# Of longer files the beginning is compared: nine minutes at 16 kHz.
_MOST_FRAMES = 8 * 1024 * 1024
_FRAMES_AT_ONCE = 64 * 1024


def sample_digest(path: Path) -> str | None:
    """Return the SHA-256 of rate, channels, length and samples, each as the float32 that training reads.

    None for what cannot be read: training says what is wrong with it when it comes to that.
    """
    if not is_regular(path):
        return None
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            digest = hashlib.sha256(f"{file.samplerate} {file.channels} {file.frames}\n".encode())
            left = _MOST_FRAMES
            while left > 0 and len(piece := file.read(min(left, _FRAMES_AT_ONCE), dtype="float32", always_2d=True)):
                digest.update(piece.astype("<f4", copy=False).tobytes())
                left -= len(piece)
    except (soundfile.SoundFileError, OSError):
        return None
    return digest.hexdigest()
