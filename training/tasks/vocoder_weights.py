"""A vocoder's weights to start from: the generator and both of its discriminators, of one step, or nothing.

A generator is trained on against the discriminators that it was trained against. So a new run begins with all three,
from a file of ours, whose seal says that its parts belong together, or from the two files of jik876/hifi-gan: `g_N`
and, beside it, `do_N` and config.json, where the steps of both are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.log_mel import HOP_SAMPLES, NUM_BANDS, WINDOW_SAMPLES
from training.checkpoints.examined import WeightsFile, examine
from training.checkpoints.record import STATE_DICT, CheckpointRecord
from training.checkpoints.verified_file import open_verified
from training.checkpoints.verified_load import load_verified
from training.checkpoints.weights import Weights
from utils.audio.waveforms import SAMPLE_RATE_HZ
from utils.errors import UserError
from utils.regular_files import read_regular

NETWORKS = ("generator", "mpd", "msd")
"""The networks of a vocoder, by the names that the published files have for them too."""
METRIC = "metric_discriminator"
"""The one that --metric_discriminator adds to them."""
OTHER_SIZE = "Most likely --vocoder_size is not that of these weights, or they are of another network"
_MOST_CONFIG_BYTES = 1 << 20
_PUBLISHED = re.compile(r"g_([0-9]+)")
_MEL = {"num_mels": NUM_BANDS, "n_fft": WINDOW_SAMPLES, "hop_size": HOP_SAMPLES, "win_size": WINDOW_SAMPLES, "fmin": 0}


def all_networks(weights: Weights) -> dict[str, Weights]:
    """Return the weights of each network, of which `weights` are those that were found in the file first.

    Raises UserError for half of a pair, and for parts that nothing says to belong together.
    """
    path, payload = weights.path, weights.payload
    keys = {name: f"{name}{STATE_DICT}" for name in NETWORKS}
    missing = [name for name, key in keys.items() if key not in payload]
    if not missing:
        if not _is_ours(path):
            raise UserError(
                f"{path} holds a generator and discriminators, and no seal of this program says that they are of one "
                "step of one run: pass a checkpoint or the best weights as they were written"
            )
        return {name: replace(weights, state_dict=payload[key], key=key, unused=()) for name, key in keys.items()}
    published = _PUBLISHED.fullmatch(path.name)
    if weights.key == "generator" and published:
        return {"generator": weights, **_discriminators(weights, published[1])}
    raise UserError(
        f"{path} holds {'no ' + ' and no '.join(missing) if 'generator' not in missing else 'no vocoder'}: a generator "
        "is trained on against the discriminators that it was trained against; pass a checkpoint or the best weights "
        "of a vocoder, or g_N of jik876/hifi-gan with do_N beside it"
    )


def _is_ours(path: Path) -> bool:
    found = examine(path)
    return isinstance(found, CheckpointRecord | WeightsFile) and found.options is not None


def _discriminators(generator: Weights, digits: str) -> dict[str, Weights]:
    """Return those in `do_N` beside `g_N`."""
    path = generator.path.with_name(f"do_{digits}")
    if not path.is_file():
        others = sorted(one.name for one in path.parent.glob("do_*"))
        found = f"found {', '.join(others)}, of another step" if others else "found none"
        raise UserError(
            f"{generator.path} is a generator of step {int(digits)}, and its discriminators would be in {path.name} "
            f"beside it: {found}; put {path.name} there"
        )
    payload: Any = load_verified(open_verified(path))
    step = payload.get("steps") if isinstance(payload, Mapping) else None
    parts = [name for name in ("mpd", "msd") if isinstance(payload, Mapping) and isinstance(payload.get(name), Mapping)]
    if len(parts) != 2:
        raise UserError(f"{path} holds no discriminators under mpd and msd, as jik876/hifi-gan writes them")
    if step != int(digits):
        raise UserError(
            f"{generator.path.name} is of step {int(digits)} and {path} says that it is of step {step}: a generator "
            "and its discriminators must be of one step"
        )
    return {name: Weights(path, payload[name], payload, name) for name in parts}


def published_remark(weights: Weights) -> str:
    """Return what config.json beside `g_N` says of how it was trained; "" for a file of ours.

    Raises UserError where it heard other spectra than ours.
    """
    if weights.key != "generator":
        return ""
    path = weights.path.with_name("config.json")
    try:
        config = json.loads(read_regular(path, _MOST_CONFIG_BYTES))
        found = {name: config[name] for name in (*_MEL, "sampling_rate", "fmax")}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: it says which spectra {weights.path.name} was trained on") from error
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} cannot be read as the settings of jik876/hifi-gan ({error!r})") from error
    other = [f"{name} {found[name]} there and {ours} here" for name, ours in _MEL.items() if found[name] != ours]
    if other:
        raise UserError(f"{weights.path} was trained on other spectra: {path} says {', '.join(other)}")
    if (found["sampling_rate"], found["fmax"]) == (SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // 2):
        return ""
    return (
        f"trained at {found['sampling_rate']} Hz, on bands up to {found['fmax']} Hz: here it goes on at "
        f"{SAMPLE_RATE_HZ} Hz, up to {SAMPLE_RATE_HZ // 2} Hz"
    )
