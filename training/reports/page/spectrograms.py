"""Spectrograms as pictures inside the run page: time to the right, high bands at the top, what is loud is dark."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from training.reports.heatmap_images import encoded
from training.reports.page.pictures import Picture
from training.tasks.task import Spectrogram

_PIXELS_A_BAND, _PIXELS_A_FRAME = 2, 3


def spectrogram_pictures(shown: Sequence[Spectrogram]) -> list[Picture]:
    """Return one picture each, all on the scale of the first one: white is its softest place, black its loudest."""
    if not shown:
        return []
    softest, loudest = (float(value) for value in shown[0].bands.float().aminmax())
    return [_picture(one, softest, max(loudest, softest + 1e-6)) for one in shown]


def _picture(one: Spectrogram, softest: float, loudest: float) -> Picture:
    from PIL import Image  # noqa: PLC0415  (only the page of a vocoder needs it)

    levels = (one.bands.float().numpy()[::-1] - softest) / (loudest - softest)
    grey = np.round(255 * (1 - np.clip(np.nan_to_num(levels), 0, 1))).astype(np.uint8)
    image = Image.fromarray(grey.repeat(_PIXELS_A_BAND, axis=0).repeat(_PIXELS_A_FRAME, axis=1))
    content = base64.b64encode(encoded(image, format="PNG", optimize=True)).decode("ascii")
    return Picture(one.title, f"data:image/png;base64,{content}", image.width, image.height)
