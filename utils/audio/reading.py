"""The one reader of audio: opens a regular file and decodes it once, from beginning to end, in blocks, or says why not.

Training, --check_data, --eval and --score hear a file through it, so that what one of them refuses the others refuse in
the same words. Memory follows what is decoded, never what a header says. libsndfile decodes what it can; the formats of
`ffmpeg.py` go through ffmpeg.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from utils.audio.complaints import Complaints
from utils.audio.ffmpeg import FfmpegDecoder, FfmpegError
from utils.audio.finding import needs_ffmpeg
from utils.audio.mpeg_length import is_frame, is_mpeg, says_its_length
from utils.audio.wav_header import AU, RIFF, data_chunk
from utils.errors import UserError
from utils.regular_files import open_regular

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1_000, 768_000
"""No recorder of speech is below or above: another rate in a header is a damaged one."""
BLOCK_SAMPLES = 2**20
"""The most samples, those of all channels together, that are decoded at once: 4 MiB of float32."""

_UNKNOWN_FRAMES = 2**62
"""libsndfile gives at least so many for a FLAC file without a length."""
_MOST_PER_BYTE = 64
"""Samples of one channel: what Opus makes of a byte at 6 kbit/s. Only silence is packed closer."""
_MOST_OF_SILENCE = 2**24
"""So many are read however close they are packed: 17 minutes at 16 kHz, 64 MiB."""
_PADDING_BYTES = 4096
_STREAMS = ("FLAC", "OGG", "MP3")
"""Their decoders read on from frame to frame, so that the position in the file says how far they came."""
_LARGEST_SAMPLE = 2.0**32
"""Floats in the scale of integers of 32 bits end at half of it. One of 1e30 would make any training diverge."""
# What libsndfile says where it means something else: its words lead away from the file.
_MISLEADING = {
    "File does not exist or is not a regular file (possibly a pipe?)": "no sound is found in it",
    "Internal error : SF_INFO struct incomplete": "its header has a sample rate or a number of channels of 0 or below",
    "Unspecified internal error": "it is damaged within",
}
# Whatever a decoder or the library around it was seen to raise for a file that is damaged or made to harm.
_RAISED = (
    soundfile.SoundFileError,
    FfmpegError,
    OSError,
    MemoryError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)

Samples = npt.NDArray[np.float32]


class UnreadableAudioError(UserError):
    """An audio file that gives no sound; `reason` says why without naming it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: the audio file cannot be read ({reason}): make it again, or take it out of the data")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableAudioError], tuple[Path, str]]:
        """It goes from worker processes to the loop."""
        return type(self), (self.path, self.reason)


class _Decoder(Protocol):
    """`read` gives `(frames, channels)`, fewer at the end. `frames` is what the header says, None where it does not.

    `head` is how the file begins.
    """

    sample_rate_hz: int
    channels: int
    frames: int | None
    head: bytes

    @property
    def format(self) -> str: ...

    def read(self, frames: int) -> Samples: ...

    def complaint(self) -> str: ...


class AudioFile:
    """An open audio file, as `open_audio` yields it.

    `samples` counts what was decoded of each channel so far. Known when all blocks are through: `promised`, how many
    the header says there are, 0 where it does not; `unexplained_bytes`, what lies behind them that the header does not
    know of; and `complaint`, what the decoder said to itself.
    """

    def __init__(self, path: Path, file: BinaryIO, decoder: _Decoder) -> None:
        self.path = path
        self.sample_rate_hz = decoder.sample_rate_hz
        self.channels = decoder.channels
        self.samples = 0
        self.promised = decoder.frames or 0
        self.unexplained_bytes = 0
        self.complaint = ""
        self._file = file
        self._decoder = decoder

    @property
    def format(self) -> str:
        """Container and coding, as `FLAC PCM_16`."""
        return self._decoder.format

    @property
    def expected_samples(self) -> int:
        """How many samples of each channel there are if the header is right; no more than the file's bytes can hold."""
        return min(self.promised, _MOST_PER_BYTE * os.fstat(self._file.fileno()).st_size)

    def blocks(self, frames: int = BLOCK_SAMPLES) -> Iterator[Samples]:
        """Yield `(frames, channels)` float32 each, full scale 1, fewer at the end; fewer for many channels.

        Raises UnreadableAudioError for what cannot be decoded, for a sample that is NaN, infinite or larger than
        integers of 32 bits, for more samples than the file's bytes can hold, which would fill memory, and at the end
        for a file that holds none, or a FLAC file that holds fewer than its header says.
        """
        num_bytes = os.fstat(self._file.fileno()).st_size
        most = max(_MOST_OF_SILENCE, _MOST_PER_BYTE * num_bytes)
        size = max(1, min(frames, BLOCK_SAMPLES // self.channels))
        said = self._decoder.frames
        while said is None or self.samples < said:
            wanted = size if said is None else min(size, said - self.samples)
            try:
                block = self._decoder.read(wanted)
            except _RAISED as error:
                raise _told(self.path, error) from error
            self._insist_on_a_scale(block)
            self.samples += len(block)
            if self.samples > most:
                raise UnreadableAudioError(
                    self.path, f"more than {most:,} samples come out of its {num_bytes:,} bytes: it is hours of silence"
                )
            if len(block):
                yield block
            if len(block) < wanted:
                break
        self._finish()

    def _insist_on_a_scale(self, block: Samples) -> None:
        mono = mixed(block)
        fits = np.abs(mono) <= _LARGEST_SAMPLE  # NaN does not
        if fits.all():
            return
        first = int(np.flatnonzero(~fits)[0])
        reason = f"sample {self.samples + first:,} is {mono[first]:.3g}"
        if np.isfinite(mono[first]):
            reason += ", beyond every scale of audio: full scale is 1, and integers of 32 bits end at 2,147,483,648"
        raise UnreadableAudioError(self.path, reason)

    def _finish(self) -> None:
        self.complaint = self._decoder.complaint()
        chunk = data_chunk(self._file) if self._decoder.head[:4] in (*RIFF, AU) else None
        if not self.samples:
            raise UnreadableAudioError(self.path, _why_no_samples(self._file, chunk.present if chunk else 0))
        if self.samples < self.promised and self.format.startswith("FLAC"):
            raise UnreadableAudioError(
                self.path, f"it holds {self.samples:,} samples, and its header says {self.promised:,}"
            )
        if chunk and chunk.is_cut:
            self.promised = chunk.said * self.samples // max(1, chunk.present)
        unexplained = chunk.unexplained if chunk else self._not_decoded()
        if unexplained > _PADDING_BYTES:
            self.unexplained_bytes = unexplained

    def _not_decoded(self) -> int:
        """Return how many bytes of a stream are left behind what was decoded; of MPEG audio, without tags at its end.

        What MPEG audio without a length promised was a guess, and is forgotten.
        """
        descriptor = self._file.fileno()
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        left = os.fstat(descriptor).st_size - at
        if not self.format.startswith(_STREAMS):
            return 0
        if is_mpeg(self._decoder.head):
            self.promised = self.promised if says_its_length(descriptor) else 0
            return left if is_frame(os.pread(descriptor, 2, at)) else 0
        return left


@contextmanager
def open_audio(path: Path) -> Iterator[AudioFile]:
    """Open an audio file for one reading; raises UnreadableAudioError for everything that keeps it from being read."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path, buffering=0))
            decoder = _decoder(path, file, stack)
        except _RAISED as error:
            raise _told(path, error) from error
        _insist_on_sound(path, decoder)
        yield AudioFile(path, file, decoder)


def mixed(samples: Samples) -> Samples:
    """Return the mean of the channels of `(frames, channels)` as `(frames,)`."""
    return samples[:, 0] if samples.shape[1] == 1 else np.asarray(samples.mean(axis=1), dtype=np.float32)


class _SoundFile(soundfile.SoundFile):
    """One that is read in one go: the library seeks after each block, which costs time and changes how MP3 decodes."""

    def seekable(self) -> bool:
        return False


class _LibsndfileDecoder:
    def __init__(self, file: BinaryIO, head: bytes, stack: ExitStack) -> None:
        self.head = head
        self._complaints = Complaints()
        self._listening = self._complaints.listening if is_mpeg(head) else nullcontext
        with self._listening():
            self._sound = stack.enter_context(_SoundFile(file.fileno(), closefd=False))
        self.sample_rate_hz = int(self._sound.samplerate)
        self.channels = int(self._sound.channels)
        self.frames: int | None = int(self._sound.frames)

    @property
    def format(self) -> str:
        return f"{self._sound.format} {self._sound.subtype}"

    def read(self, frames: int) -> Samples:
        with self._listening():
            found: Samples = self._sound.read(frames, dtype="float32", always_2d=True)
        return found

    def complaint(self) -> str:
        return self._complaints.first


def _decoder(path: Path, file: BinaryIO, stack: ExitStack) -> _Decoder:
    if path.name.lower().endswith(".raw"):
        raise UnreadableAudioError(path, "raw samples do not say their rate and channels: give it a header, as WAV")
    if needs_ffmpeg(path.name):
        return stack.enter_context(FfmpegDecoder(path))
    head = os.pread(file.fileno(), 4, 0)
    if not head:
        raise UnreadableAudioError(path, "it is empty")
    return _LibsndfileDecoder(file, head, stack)


def _insist_on_sound(path: Path, decoder: _Decoder) -> None:
    rate_hz = decoder.sample_rate_hz
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise UnreadableAudioError(path, f"a sample rate of {rate_hz:,} Hz is none of audio")
    if decoder.channels < 1:
        raise UnreadableAudioError(path, f"it has {decoder.channels} channels")
    if decoder.frames is not None and decoder.frames >= _UNKNOWN_FRAMES:
        raise UnreadableAudioError(
            path,
            "its header does not say how long it is, as where a program wrote to a pipe: write it anew, with flac or "
            "ffmpeg",
        )


def _why_no_samples(file: BinaryIO, bytes_behind: int) -> str:
    """Return why nothing was decoded; `bytes_behind` a header that says 0."""
    size = os.fstat(file.fileno()).st_size
    if bytes_behind:
        return (
            f"its header gives length 0, while {bytes_behind:,} bytes follow, as where a recorder was stopped: write "
            "it anew, with ffmpeg or sox"
        )
    return "it holds no samples" + (f" by its header, and {size:,} bytes" if size > _PADDING_BYTES else "")


def _told(path: Path, error: BaseException) -> UnreadableAudioError:
    """Make one sentence of whatever was raised."""
    if isinstance(error, FileNotFoundError):
        return UnreadableAudioError(path, "there is no such file")
    if isinstance(error, MemoryError):
        return UnreadableAudioError(path, "there is not enough memory to decode it")
    said = error.strerror if isinstance(error, OSError) else getattr(error, "error_string", "")
    words = (str(said or error) or type(error).__name__).rstrip(".").removeprefix("Error : ")
    return UnreadableAudioError(path, _MISLEADING.get(words, words))
