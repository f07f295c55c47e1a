"""How the digests of data are called that a checkpoint holds; those of the protocols have the names of their parts."""

from __future__ import annotations

AUDIO_SIZES = "audio"
"""Of the names and sizes of all audio files."""
_CONTENT_OF = "audio of "


def content_name(part: str, utterance: str) -> str:
    """Return the name of the digest of one file's content.

    >>> content_name("train", "LA_T_1000137")
    'audio of train LA_T_1000137'
    """
    return f"{_CONTENT_OF}{part} {utterance}"


def file_of(name: str) -> str:
    """Return which file a digest of content is of, in words."""
    return name.removeprefix(_CONTENT_OF)


def is_of_audio(name: str) -> bool:
    """Whether a digest is of audio and not of a protocol."""
    return name == AUDIO_SIZES or name.startswith(_CONTENT_OF)
