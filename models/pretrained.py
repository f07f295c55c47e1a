"""Finds and loads a pretrained front-end, all of its weights or none: a local folder or file, the cache, or a download.

What is in the cache is used without asking the network, so a run starts offline, and from the same weights.
transformers and huggingface_hub are imported where they are used: they cost seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from models.fairseq_file import read_fairseq_file
from models.names import COMPACT
from utils.errors import UserError
from utils.folders import is_folder
from utils.regular_files import is_regular

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# They take a raw waveform, and their encoder is a list of transformer layers called `encoder.layers`.
FAMILY = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "wav2vec2-conformer")

CONFIG_FILE = "config.json"
# The formats of transformers, the preferred one first; a pattern covers the parts of a split file and their index.
WEIGHT_PATTERNS = ("model*.safetensors*", "pytorch_model*.bin*")


def load_pretrained(ssl_model: str) -> PreTrainedModel:
    """Return the model of `ssl_model`, a local folder, a file of fairseq's or a hub name: float32, all from its file.

    Raises `UserError` if it cannot be had, is not of the wav2vec2 family, or does not fit exactly.
    """
    file = Path(ssl_model).expanduser()
    if is_regular(file):
        return _from_fairseq(file)
    folder = find_weights(ssl_model)
    return _load_weights(_read_config(folder, ssl_model), folder, ssl_model)


def _from_fairseq(path: Path) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModel  # noqa: PLC0415

    found = read_fairseq_file(path)
    config = adapt_config(AutoConfig.for_model(**found.config))
    model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    own = model.state_dict()
    unfit = [
        name for name, part in own.items() if name in found.state_dict and found.state_dict[name].shape != part.shape
    ]
    unfit += sorted(own.keys() ^ found.state_dict.keys())
    if unfit:
        raise UserError(
            f"--ssl_model {path}: {len(unfit)} tensors are missing, left over or of another size than in a model of "
            f"the shape that the others have, such as {unfit[0]}: download or copy it again"
        )
    model.load_state_dict(found.state_dict, strict=True)
    return model


def find_weights(ssl_model: str) -> Path:
    """Return the folder with config.json and the weights of `ssl_model`, a local folder or a hub name.

    Raises `UserError` that says how to get them.
    """
    local = Path(ssl_model).expanduser()
    if is_folder(local):
        _require_files(local, ssl_model)
        return local
    if os.path.lexists(local):
        raise UserError(
            f"--ssl_model {ssl_model} is neither a folder nor a file that can be read. {_how_to_get(ssl_model)}"
        )
    return _cached(ssl_model) or _download(ssl_model)


def _require_files(folder: Path, ssl_model: str) -> None:
    if not is_regular(folder / CONFIG_FILE):
        raise UserError(f"--ssl_model {ssl_model} is a folder without {CONFIG_FILE}: {_how_to_get(ssl_model)}")
    if not _has_weights(folder):
        raise UserError(
            f"--ssl_model {ssl_model} is a folder without weights ({' or '.join(WEIGHT_PATTERNS)}): "
            f"{_how_to_get(ssl_model)}"
        )


def _has_weights(folder: Path) -> bool:
    return any(is_regular(path) for pattern in WEIGHT_PATTERNS for path in folder.glob(pattern))


def _cached(name: str) -> Path | None:
    """Return the folder of an earlier download that is complete, or None."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except HFValidationError as error:
        raise UserError(f"--ssl_model: no folder and no hub name: '{name}'. {_how_to_get(name)}") from error
    except OSError:
        return None
    return folder if is_regular(folder / CONFIG_FILE) and _has_weights(folder) else None


def _download(name: str) -> Path:
    """Download config and weights, in one format only, into the hub's cache and return their folder."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(name, allow_patterns=[CONFIG_FILE, WEIGHT_PATTERNS[0]]))
        if not _has_weights(folder):
            snapshot_download(name, allow_patterns=[WEIGHT_PATTERNS[1]])
    except OSError as error:
        reason = _first_line(error)
        raise UserError(
            f"--ssl_model {name}: neither a folder nor in the cache, and the hub did not give it ({reason}): "
            f"{_how_to_get(name)}"
        ) from error
    _require_files(folder, name)
    return folder


def _how_to_get(name: str) -> str:
    hub_name = name if name.count("/") == 1 and name[0] not in "./~" else "facebook/wav2vec2-xls-r-300m"
    return (
        f"on a machine with a network run `hf download {hub_name} --local-dir FOLDER`, copy FOLDER here and pass "
        f"--ssl_model FOLDER, or pass --ssl_model {COMPACT} for a small model with random weights"
    )


def _read_config(folder: Path, ssl_model: str) -> PreTrainedConfig:
    """Read the architecture; raises `UserError` for a broken file and for anything but the wav2vec2 family."""
    from transformers import AutoConfig  # noqa: PLC0415

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--ssl_model {ssl_model}: transformers cannot read {folder / 'config.json'}: {_first_line(error)}"
        ) from error
    if config.model_type not in FAMILY:
        raise UserError(
            f"--ssl_model must be a model of the wav2vec2 family ({', '.join(FAMILY)}), found {ssl_model}, "
            f"which is '{config.model_type}'"
        )
    return adapt_config(config)


def adapt_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Switch off what would drop layers, mask input or run behind the last layer; every layer counts here."""
    config.layerdrop = 0.0
    config.apply_spec_augment = False
    config.add_adapter = False
    config.dtype = torch.float32
    return config


def _load_weights(config: PreTrainedConfig, folder: Path, ssl_model: str) -> PreTrainedModel:
    """Return the model with every weight from `folder`; raises `UserError` if one is missing, unfit or left over."""
    from safetensors import SafetensorError  # noqa: PLC0415
    from transformers import AutoModel  # noqa: PLC0415

    try:
        with _quiet_transformers():
            model, report = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # so that they come back in the report, where they are refused
                output_loading_info=True,
            )
    # What a cut file, an empty one and a Git LFS pointer raise, in either format.
    except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"--ssl_model {ssl_model}: the weights in {folder} cannot be read ({_first_line(error)}): "
            f"download or copy them again, or pass --ssl_model {COMPACT}"
        ) from error
    unfit = _unfit_weights(report)
    if unfit:
        raise UserError(
            f"--ssl_model {ssl_model}: the weights in {folder} do not fit its config.json: {'; '.join(unfit)}. "
            f"Download or copy the folder again, or pass --ssl_model {COMPACT}"
        )
    loaded: PreTrainedModel = model
    return loaded


def _unfit_weights(report: dict[str, Any]) -> list[str]:
    """Return what is wrong with loaded weights, a phrase for each kind; [] if they are all there and all used.

    `masked_spec_embed` may be missing, since nothing is masked here, and what belongs to a pretraining or recognition
    head may be left over; encoder weights may not, or the model would be a part of what the file holds.
    """
    found = {
        "missing": [key for key in report["missing_keys"] if key != "masked_spec_embed"],
        "of another size": [str(key[0]) for key in report["mismatched_keys"]],
        "left over": [key for key in report["unexpected_keys"] if "encoder.layers." in key],
        "unreadable": list(report["error_msgs"]),
    }
    return [f"{len(keys)} {kind}, such as {min(keys)}" for kind, keys in found.items() if keys]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hold back transformers' progress bar and loading table, whose content is checked here; settings are restored."""
    from transformers.utils import logging  # noqa: PLC0415

    verbosity, had_progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_progress_bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
