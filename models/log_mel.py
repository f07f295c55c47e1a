"""The mel spectrogram that a HiFi-GAN vocoder hears and is judged by.

As published (jik876/hifi-gan meldataset.py, `mel_spectrogram`), at 16 kHz: 80 bands of Slaney's scale and area from 0
to 8 kHz, as `librosa.filters.mel` makes them, of the magnitude of Hann windows of 1,024 samples each 256.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.audio.mel_filters import slaney_filters

NUM_BANDS = 80
HOP_SAMPLES = 256
WINDOW_SAMPLES = 1024
_LEAST_MAGNITUDE = 1e-5
_UNDER_THE_ROOT = 1e-9


class HifiGanMel(nn.Module):
    """Natural logarithms of the magnitude in 80 mel bands. Nothing is learned, and nothing is in the state_dict."""

    filters: Tensor
    window: Tensor

    def __init__(self, sample_rate_hz: int = 16_000, highest_hz: float = 8_000.0) -> None:
        super().__init__()
        filters = slaney_filters(sample_rate_hz, WINDOW_SAMPLES, NUM_BANDS, highest_hz)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Return (batch, 80, samples // 256) for `waveform` (batch, samples), at least 512 of them.

        The first frame's window begins 384 samples before the first sample, which are mirrored there, as at the end.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            beyond = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
            padded = mirrored(waveform.float(), beyond, beyond)
            spectrum = torch.stft(
                padded, WINDOW_SAMPLES, HOP_SAMPLES, WINDOW_SAMPLES, self.window, center=False, return_complex=True
            )
            magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + _UNDER_THE_ROOT)
            return torch.log(torch.clamp(self.filters @ magnitude, min=_LEAST_MAGNITUDE))


def mirrored(waveform: Tensor, before: int, after: int) -> Tensor:
    """Return `waveform` (..., samples) with so many samples before and after it, those within mirrored at its ends.

    As torch's reflecting pad, whose gradient has no deterministic form on CUDA; this one has.
    """
    parts = [waveform[..., 1 : before + 1].flip(-1), waveform]
    return torch.cat([*parts, waveform[..., -after - 1 : -1].flip(-1)] if after else parts, dim=-1)
