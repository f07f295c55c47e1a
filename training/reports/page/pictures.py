"""The newest heatmaps of a run as images inside the page, made small enough that a page opens on a phone."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from training.reports.heatmap_images import encoded, small_image
from training.runs.directory import RunDirectory

MOST_BYTES = 2_000_000
_MOST_PIXELS_ACROSS = 1000
_QUALITY = 78
_MOST_SAMPLES = 6
_SAMPLE = re.compile(r"sample_(\d+)_(bonafide|spoof)_pred_(bonafide|spoof)_(ok|wrong)")
_CLASS = re.compile(r"(.+)_(bonafide|spoof)")
_EPOCH = re.compile(r"attention_epoch_(\d+)")
_TITLES = {
    "temporal_attention_heatmap": "Attention over layers and time",
    "intra_group_attention": "Weights within the groups of layers",
    "inter_group_attention": "Weights of the groups of layers",
    "layer_importance": "Importance of each layer",
}
_WORDS = {"bonafide": "bona fide", "spoof": "spoof"}


@dataclass(frozen=True)
class Picture:
    """One image with its caption; `address` is a data: URL, so that the page needs no other file."""

    caption: str
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Heatmaps:
    """The pictures of one folder of heatmaps; `num_left_out` are those that stay files."""

    folder: Path
    epoch: int | None
    pictures: tuple[Picture, ...]
    num_left_out: int


def newest_heatmaps_folder(run: RunDirectory, epochs_completed: int) -> Path | None:
    """Return the folder with the heatmaps of the latest epoch up to the one completed; None where none is there."""
    folders = {}
    for path in run.folder.glob("attention_epoch_*"):
        match = _EPOCH.fullmatch(path.name)
        if match and int(match.group(1)) <= epochs_completed:
            folders[int(match.group(1))] = path
    newest = folders[max(folders)] if folders else None
    final = run.final_attention_folder
    is_newer = final.is_dir() and (newest is None or final.stat().st_mtime >= newest.stat().st_mtime)
    return final if is_newer else newest


def read_heatmaps(folder: Path, most_bytes: int = MOST_BYTES) -> Heatmaps | None:
    """Return the heatmaps of a folder, those of the classes first; None where it has no readable picture.

    Their addresses take `most_bytes` at most: what does not fit any more is left out, and so is a file that is no
    picture. Raises OSError where the folder cannot be read.
    """
    files = sorted(folder.glob("*.png"))
    of_classes = [path for path in files if not path.name.startswith("sample_")]
    order = list(_TITLES)
    of_classes.sort(key=lambda path: (_kind_of(path, order), path.name))
    samples = [path for path in files if path.name.startswith("sample_")]
    wrong_first = sorted(samples, key=lambda path: not path.stem.endswith("_wrong"))
    pictures: list[Picture] = []
    room = most_bytes
    for path in [*of_classes, *wrong_first[:_MOST_SAMPLES]]:
        made = _picture(path)
        if made and len(made.address) <= room:
            room -= len(made.address)
            pictures.append(made)
    if not pictures:
        return None
    match = _EPOCH.fullmatch(folder.name)
    return Heatmaps(folder, int(match.group(1)) if match else None, tuple(pictures), len(files) - len(pictures))


def _kind_of(path: Path, order: list[str]) -> int:
    match = _CLASS.fullmatch(path.stem)
    return order.index(match.group(1)) if match and match.group(1) in order else len(order)


def _picture(path: Path) -> Picture | None:
    image = small_image(path, _MOST_PIXELS_ACROSS)
    if image is None:
        return None
    content = base64.b64encode(encoded(image, format="WEBP", quality=_QUALITY, method=2)).decode("ascii")
    return Picture(_caption(path.stem), f"data:image/webp;base64,{content}", image.width, image.height)


def _caption(stem: str) -> str:
    """Return what a file of heatmaps shows, in words.

    >>> _caption("layer_importance_bonafide")
    'Importance of each layer, bona fide'
    >>> _caption("sample_003_spoof_pred_bonafide_wrong")
    'Utterance 3: spoof, taken for bona fide'
    """
    if match := _SAMPLE.fullmatch(stem):
        number, truth, predicted, verdict = match.groups()
        found = f"taken for {_WORDS[predicted]}" if verdict == "wrong" else "recognised"
        return f"Utterance {int(number)}: {_WORDS[truth]}, {found}"
    match = _CLASS.fullmatch(stem)
    if match and match.group(1) in _TITLES:
        return f"{_TITLES[match.group(1)]}, {_WORDS[match.group(2)]}"
    return stem.replace("_", " ")
