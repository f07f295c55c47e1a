"""A trained vocoder at work: the copy that it makes of an utterance, of the same length and level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.hifigan import SHAPES, Generator, VocoderShape
from models.log_mel import HOP_SAMPLES, WINDOW_SAMPLES, HifiGanMel
from models.precision import autocast
from training.checkpoints.record import STATE_DICT
from training.checkpoints.verified_file import VerifiedFile
from training.checkpoints.weights import Weights, load_into, load_weights
from training.data.segments import at_peak
from training.settings.options import Options
from training.tasks.vocoder_shape import SHAPE, shape_in
from training.tasks.vocoder_weights import OTHER_SIZE
from utils.audio.waveforms import Waveform


@dataclass(frozen=True, eq=False)
class Copy:
    """What a vocoder made of an utterance: `waveform` (samples,) float32 at 16 kHz, and how far its mel bands are."""

    waveform: Waveform
    mel_distance: float


class Vocoder:
    """A generator in evaluation mode on a device."""

    def __init__(self, generator: nn.Module, device: torch.device, precision: str = "fp32") -> None:
        self._generator, self._mel, self._device = generator.to(device), HifiGanMel().to(device), device
        self._precision = precision

    @torch.inference_mode()
    def copy(self, waveform: Waveform) -> Copy:
        """Return the copy of an utterance (samples,) at 16 kHz, at least one sample.

        It is made at the level of training and brought back to its own; the distance is measured before that.
        """
        source, gain = at_peak(waveform)
        length = max(WINDOW_SAMPLES, -(-source.size // HOP_SAMPLES) * HOP_SAMPLES)
        heard = torch.from_numpy(np.pad(source, (0, length - source.size))).to(self._device).unsqueeze(0)
        mel = self._mel(heard)
        with autocast(self._device, self._precision):
            made = self._generator(mel)
        distance = mel_distances(mel, self._mel(made)).item()
        return Copy((made[0, : source.size].cpu().numpy() / np.float32(gain)).astype(np.float32), distance)


def mel_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute difference (batch,) of two mel spectrograms (batch, bands, frames)."""
    return (one - other).abs().mean(dim=(1, 2))


def generator_in(opened: VerifiedFile, options: Options) -> tuple[Generator, VocoderShape]:
    """Return the generator in a verified file, in evaluation mode, and its shape.

       `options` say its size where the file does not.
    Raises UserError where there is none.
    """
    weights = load_weights(opened)
    payload = weights.payload
    shape = shape_in(payload) if SHAPE in payload else SHAPES[options.vocoder_size]
    generator = Generator(shape)
    key = f"generator{STATE_DICT}"
    if key in payload:
        weights = Weights(weights.path, payload[key], payload, key)
    load_into(generator, weights, OTHER_SIZE)
    return generator.eval(), shape
