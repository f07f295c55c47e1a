"""The attention heatmaps that a run has drawn, small enough for an event file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.runs.directory import RunDirectory
from utils.atomic_files import TEMPORARY_PREFIX

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
            image = _small(path)
            if image:
                yield image


def tag_of(name: str) -> str:
    """Return the name of a figure among the images of a run; the verdict on an utterance changes, its tag does not.

    >>> tag_of("layer_importance_spoof"), tag_of("sample_003_spoof_pred_bonafide_wrong")
    ('attention/layer_importance_spoof', 'attention_sample/003_spoof')
    """
    sample = _SAMPLE.fullmatch(name)
    return f"attention_sample/{sample[1]}_{sample[2]}" if sample else f"attention/{name}"


def _small(path: Path) -> HeatmapImage | None:
    from PIL import Image  # noqa: PLC0415  (matplotlib brings it, and only drawn heatmaps need it)

    made = io.BytesIO()
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((WIDEST_PIXELS, 4 * WIDEST_PIXELS))
            small.save(made, format="PNG", optimize=True)
    except (OSError, ValueError, SyntaxError):  # the last is what Pillow calls a broken PNG
        return None
    return HeatmapImage(tag_of(path.stem), made.getvalue(), *small.size)
