"""How the digests of data are called that a checkpoint holds; those of the protocols have the names of their parts."""

from __future__ import annotations

AUDIO_SIZES = "audio"
"""Of the names and sizes of all audio files."""
_CONTENT_OF = "audio of "
_SAMPLES_OF = "samples of "


def content_name(part: str, utterance: str) -> str:
    """Return the name of the digest of one file's content.

    >>> content_name("train", "LA_T_1000137")
    'audio of train LA_T_1000137'
    """
    return f"{_CONTENT_OF}{part} {utterance}"


def samples_name(of_content: str) -> str:
    """Return the name of the digest of a file's decoded samples, from that of its content.

    >>> samples_name("audio of train LA_T_1000137")
    'samples of train LA_T_1000137'
    """
    return f"{_SAMPLES_OF}{file_of(of_content)}"


def is_of_content(name: str) -> bool:
    """Whether a digest is of the content of one file."""
    return name.startswith(_CONTENT_OF)


def file_of(name: str) -> str:
    """Return which file a digest of content is of, in words."""
    return name.removeprefix(_CONTENT_OF)


def is_of_audio(name: str) -> bool:
    """Whether a digest is of audio and not of a protocol."""
    return name == AUDIO_SIZES or name.startswith((_CONTENT_OF, _SAMPLES_OF))
