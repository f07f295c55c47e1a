"""What the exported file of a vocoder computes: mel spectrograms in, waveforms out; and what it says of itself."""

from __future__ import annotations

import json
from typing import ClassVar, Self

import torch
from torch import Tensor

from models.hifigan import Generator, VocoderShape
from models.log_mel import HOP_SAMPLES, NUM_BANDS, WINDOW_SAMPLES
from training.checkpoints.record import CheckpointRecord
from training.data.segments import PEAK
from training.export.exportable import Exportable, Taken
from training.tasks.vocoder_shape import stored_shape
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ
from utils.version import PROGRAM


def random_bands(batch_size: int, frames: int) -> Tensor:
    """Return (batch_size, 80, frames) of random values in the range of log-mel bands, the same in every run."""
    generator = torch.Generator().manual_seed(batch_size)
    return 2 * torch.randn(batch_size, NUM_BANDS, frames, generator=generator) - 5


MELS = Taken("mel", random_bands, CROP_SAMPLES // HOP_SAMPLES, (126, 379), axis=2, least=8, unit="frames")


class VocodedSpeech(Exportable):
    """A generator, whose one output has a name."""

    taken: ClassVar[Taken] = MELS
    outputs: ClassVar[tuple[str, ...]] = ("waveform",)

    def __init__(self, generator: Generator, shape: VocoderShape) -> None:
        super().__init__()
        self.generator, self._shape = generator, shape

    @property
    def network(self) -> Generator:
        """The generator."""
        return self.generator

    def empty(self) -> Self:
        """Return a generator of this shape with random weights."""
        return type(self)(Generator(self._shape), self._shape)

    def forward(self, mel: Tensor) -> tuple[Tensor]:
        """Return waveforms (batch, 256 * frames) of `mel` (batch, 80, frames)."""
        return (self.generator(mel),)


def vocoder_metadata(record: CheckpointRecord, shape: VocoderShape, any_length: bool) -> dict[str, str]:
    """Return what is written into the file: what it takes, which epoch it is of, and the shape that rebuilds it.

    `val_mel` is that of exactly these weights, and left out where they were not validated.
    """
    validated = record.validated or (record.last if record.last and record.last.step == record.step else None)
    mel = {
        "bands": NUM_BANDS,
        "scale": "slaney",
        "window_samples": WINDOW_SAMPLES,
        "hop_samples": HOP_SAMPLES,
        "least_hz": 0,
        "highest_hz": SAMPLE_RATE_HZ // 2,
        "magnitude": "natural logarithm, at least 1e-5",
        "peak": PEAK,
    }
    facts = {
        "program": PROGRAM,
        "model_type": record.options.model_type,
        "vocoder_size": record.options.vocoder_size,
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "mel": json.dumps(mel),
        "frames": str(MELS.length),
        "length": "any" if any_length else "fixed",
        "source": record.path.name,
        "epoch": str(record.epoch),
        "step": str(record.step),
        "vocoder_shape": json.dumps(stored_shape(shape), sort_keys=True),
    }
    return facts | ({"val_mel": repr(validated["val_mel"])} if validated else {})
