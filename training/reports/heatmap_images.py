"""The attention heatmaps that a run has drawn, small enough for an event file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.runs.directory import RunDirectory
from utils.atomic_files import TEMPORARY_PREFIX
from utils.regular_files import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST_PIXELS = 720
_SAMPLE = re.compile(r"sample_(\d+)_(spoof|bonafide)_pred_.*")


@dataclass(frozen=True)
class HeatmapImage:
    """One figure as PNG; `tag` is the same for the same figure of other epochs."""

    tag: str
    png: bytes
    width: int
    height: int


def heatmaps_of_epoch(run: RunDirectory, epoch: int) -> Iterator[HeatmapImage]:
    """Yield the figures drawn after an epoch, in the order of their names; none where none were drawn.

    One that cannot be read is passed over: it is there to be looked at, and can be drawn again.
    """
    folder = run.attention_folder(epoch)
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.png")):
        if not path.name.startswith(TEMPORARY_PREFIX):
            image = small_image(path, WIDEST_PIXELS)
            if image:
                yield HeatmapImage(tag_of(path.stem), encoded(image, format="PNG", optimize=True), *image.size)


def tag_of(name: str) -> str:
    """Return the name of a figure among the images of a run; the verdict on an utterance changes, its tag does not.

    >>> tag_of("layer_importance_spoof"), tag_of("sample_003_spoof_pred_bonafide_wrong")
    ('attention/layer_importance_spoof', 'attention_sample/003_spoof')
    """
    sample = _SAMPLE.fullmatch(name)
    return f"attention_sample/{sample[1]}_{sample[2]}" if sample else f"attention/{name}"


def small_image(path: Path, widest_pixels: int) -> Image | None:
    """Return a picture at most so wide, in RGB; None for a file that is no whole picture."""
    from PIL import Image  # noqa: PLC0415  (matplotlib brings it, and only drawn heatmaps need it)

    try:
        with open_regular(path) as file, Image.open(file) as opened:
            image = opened.convert("RGB")
    # SyntaxError is what Pillow calls a broken PNG; one of more pixels than fit into memory is refused as a bomb.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((widest_pixels, 10 * widest_pixels))
    return image


def encoded(image: Image, **how: Any) -> bytes:
    """Return the bytes of an image file, `how` as Pillow's `save` takes it."""
    made = io.BytesIO()
    image.save(made, **how)
    return made.getvalue()
