"""Decodes through ffmpeg what libsndfile does not read: MPEG-4 audio, WMA, AMR and the sound of videos.

`ffmpeg` is asked for the first audio stream as a WAV file of float samples on its standard output, read here as it
comes, so an hour takes no more memory than a second. It gets no input, opens no address of a network, is given up when
nothing came for a minute, and is killed when the reading ends early. Its version decides what comes out.
"""

from __future__ import annotations

import os
import selectors
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from utils.audio.finding import ffmpeg_path, without_ffmpeg

PATIENCE_S = 60.0
"""How long ffmpeg may give nothing before it is given up."""
_PIPE_BYTES = 2**16
_SAID_BYTES = 4096
_FLOAT, _EXTENSIBLE = 3, 0xFFFE  # WAVE_FORMAT_IEEE_FLOAT, WAVE_FORMAT_EXTENSIBLE


class FfmpegError(Exception):
    """Why nothing more comes from ffmpeg, in a few words."""


class FfmpegDecoder:
    """The sound of a file as ffmpeg gives it; a context manager. Raises FfmpegError where it gives none."""

    frames: int | None = None  # no header says how many will come
    head = b""

    def __init__(self, path: Path) -> None:
        found = ffmpeg_path()
        if found is None:
            raise FfmpegError(without_ffmpeg(path.name))
        # "file:" keeps a name like concat:a|b from being an address, and the white list what a playlist may name.
        source = ("-protocol_whitelist", "file", "-i", f"file:{path}", "-map", "0:a:0")
        wanted = ("-c:a", "pcm_f32le", "-bitexact", "-f", "wav", "pipe:1")
        self._process = subprocess.Popen(
            (found, "-nostdin", "-hide_banner", "-loglevel", "error", *source, *wanted),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,  # Ctrl-C at a terminal is for this program, which decides when to stop
        )
        self._ready = selectors.DefaultSelector()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            self._ready.register(stream, selectors.EVENT_READ)
        self._rest = bytearray()
        self._said = b""
        try:
            self.sample_rate_hz, self.channels = self._read_header()
        except BaseException:
            self._end()
            raise
        self.format = f"{path.suffix[1:].upper()} FLOAT"

    def __enter__(self) -> FfmpegDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, frames: int) -> npt.NDArray[np.float32]:
        """Return the next `(frames, channels)` float32, fewer at the end of the stream."""
        width = 4 * self.channels
        taken = self._take(frames * width)
        if len(taken) < frames * width:
            self._insist_on_success()
        whole = len(taken) // width * width
        return np.frombuffer(taken[:whole], dtype="<f4").astype(np.float32, copy=False).reshape(-1, self.channels)

    def complaint(self) -> str:
        """Return the first line of what ffmpeg said while it decoded, "" for nothing."""
        return self._words()

    def _read_header(self) -> tuple[int, int]:
        """Return rate and channels from the head of a WAV stream, and read up to the first sample."""
        head = self._take(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            self._insist_on_success()
            raise FfmpegError("ffmpeg gave no sound")
        form = b""
        while len(head := self._take(8)) == 8 and head[:4] != b"data":
            length = int.from_bytes(head[4:], "little")
            content = self._take(min(length + length % 2, _PIPE_BYTES))
            form = content if head[:4] == b"fmt " else form
        coding = int.from_bytes(form[24:26] if form[:2] == _EXTENSIBLE.to_bytes(2, "little") else form[:2], "little")
        if len(form) < 16 or coding != _FLOAT or int.from_bytes(form[14:16], "little") != 32:
            self._insist_on_success()
            raise FfmpegError("ffmpeg did not give the float samples that it was asked for")
        return int.from_bytes(form[4:8], "little"), int.from_bytes(form[2:4], "little")

    def _take(self, count: int) -> bytes:
        """Return so many bytes of the stream, fewer at its end."""
        assert self._process.stdout is not None
        while len(self._rest) < count and self._process.stdout in self._ready.get_map():
            events = self._ready.select(PATIENCE_S)
            if not events:
                raise FfmpegError(f"ffmpeg gave nothing for {PATIENCE_S:g} s")
            for key, _ in events:
                self._hear(key.fileobj)  # type: ignore[arg-type]
        taken = bytes(self._rest[:count])
        del self._rest[:count]
        return taken

    def _hear(self, stream: IO[bytes]) -> None:
        """Read what is there; both streams, so that neither can fill up and stop ffmpeg."""
        content = os.read(stream.fileno(), _PIPE_BYTES)
        if not content:
            self._ready.unregister(stream)
        elif stream is self._process.stdout:
            self._rest += content
        else:
            self._said = (self._said + content)[:_SAID_BYTES]

    def _insist_on_success(self) -> None:
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise FfmpegError(f"ffmpeg did not end for {PATIENCE_S:g} s") from None
        while self._ready.get_map() and (events := self._ready.select(0)):
            for key, _ in events:
                self._hear(key.fileobj)  # type: ignore[arg-type]
        if code:
            raise FfmpegError(f"ffmpeg: {self._words() or f'exit code {code}'}")

    def _words(self) -> str:
        lines = self._said.decode(errors="replace").splitlines()
        return next((line.strip().rstrip(".") for line in lines if line.strip()), "")

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._ready.close()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
