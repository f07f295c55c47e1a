"""What an audio file sounds like, as a digest of its decoded samples: one for all lossless ways to encode them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from utils.audio.reading import UnreadableAudioError, open_audio

# Of longer files the beginning is compared: nine minutes at 16 kHz.
_MOST_FRAMES = 8 * 1024 * 1024
_FRAMES_AT_ONCE = 64 * 1024


def sample_digest(path: Path) -> str | None:
    """Return the SHA-256 of rate, channels, length and samples, each as the float32 that training reads.

    None for what cannot be read: training says what is wrong with it when it comes to that.
    """
    try:
        with open_audio(path) as file:
            digest = hashlib.sha256(f"{file.sample_rate_hz} {file.channels} {file.promised}\n".encode())
            for piece in file.blocks(_FRAMES_AT_ONCE):
                digest.update(piece.astype("<f4", copy=False).tobytes())
                if file.samples >= _MOST_FRAMES:
                    break
    except UnreadableAudioError:
        return None
    return digest.hexdigest()
