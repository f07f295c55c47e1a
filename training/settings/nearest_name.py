"""The known name that an unknown one probably means: for flags, and for the names in a YAML file.

Only ever a question in a refusal: nothing is done under a guessed name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

_SHORTEST_BEGINNING = 3
# Below it are names that share some letters by chance, as `epsilon` and `version`.
_CUTOFF = 0.75
# What a name is not part of: dashes, those of a word processor too.
_EDGES = "-\N{EN DASH}\N{EM DASH} "
# How the flag begins that turns a switch off.
_NO = "no_"
# What other trainers call it, where neither the letters nor the words lead there.
USUAL_NAMES = {
    "learning_rate": "lr",
    "bs": "batch_size",
    "wd": "weight_decay",
    "gpu": "device",
    "gpus": "device",
    "cuda": "device",
    "cpu": "device",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "mixed_precision": "precision",
    "data": "database_path",
    "data_dir": "database_path",
    "data_path": "database_path",
    "data_root": "database_path",
    "dataset": "database_path",
    "db_path": "database_path",
    "root": "database_path",
    "root_dir": "database_path",
    "input": "database_path",
    "labels": "protocols_path",
    "trials": "protocols_path",
    "output": "experiment",
    "output_dir": "experiment",
    "out_dir": "experiment",
    "save_dir": "experiment",
    "log_dir": "experiment",
    "exp_dir": "experiment",
    "checkpoint_dir": "experiment",
    "ckpt_dir": "experiment",
    "exp_name": "experiment",
    "name": "experiment",
    "run_name": "comment",
    "tag": "comment",
    "model": "model_type",
    "arch": "model_type",
    "architecture": "model_type",
    "network": "model_type",
    "backbone": "ssl_model",
    "ckpt": "model_path",
    "ckpt_path": "model_path",
    "checkpoint": "model_path",
    "checkpoint_path": "model_path",
    "weights": "model_path",
    "pretrained": "model_path",
    "load": "model_path",
    "resume_from": "model_path",
    "resume_from_checkpoint": "model_path",
    "augment": "algo",
    "augmentation": "algo",
    "rawboost": "algo",
    "early_stopping": "patience",
    "early_stop": "patience",
    "n_jobs": "num_workers",
    "grad_accum": "accumulate_steps",
    "gradient_accumulation_steps": "accumulate_steps",
    "max_grad_norm": "clip_grad_norm",
    "gradient_clipping": "clip_grad_norm",
    "log_interval": "val_interval",
    "eval_interval": "val_interval",
    "save_steps": "save_interval",
    "save_every": "save_interval",
    "save_top_k": "keep_last_n",
    "save_total_limit": "keep_last_n",
    "test": "eval",
    "predict": "score",
    "infer": "score",
    "inference": "score",
}


def nearest_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that `name` probably means, as it is written there; None where none is near.

    The first that fits: the same letters; what other trainers call it; the one name that begins so; the one name that
    has the same words or more, or fewer; the most similar spelling.

    >>> settings = ["num_epochs", "num_workers", "lr", "batch_size", "no-wandb"]
    >>> [nearest_name(name, settings) for name in ("num-epochs", "learning-rate", "batch", "epochs", "no_wandb", "lrr")]
    ['num_epochs', 'lr', 'batch_size', 'num_epochs', 'no-wandb', 'lr']
    """
    wanted = _plain(name)
    names = {_plain(one): one for one in sorted(known)}
    for plain, one in names.items():
        if _letters(plain) == _letters(wanted):
            return one
    usual = {other: ours for other, ours in USUAL_NAMES.items() if ours in names}
    for other, ours in usual.items():
        if _letters(other) == _letters(wanted):
            return names[ours]
    meant = [plain for plain in names if plain.startswith(_NO) == wanted.startswith(_NO)]
    found = _the_one_that_begins(wanted, meant) or _the_one_with_the_words(wanted, meant)
    found = found or next(iter(difflib.get_close_matches(wanted, [*meant, *usual], n=1, cutoff=_CUTOFF)), None)
    return names[usual.get(found, found)] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[-\s]+", "_", name.strip(_EDGES)).lower()


def _letters(plain: str) -> str:
    return plain.replace("_", "")


def _the_one_that_begins(wanted: str, names: Collection[str]) -> str | None:
    if len(wanted) < _SHORTEST_BEGINNING:
        return None
    return _only([name for name in names if name.startswith(wanted)])


def _the_one_with_the_words(wanted: str, names: Collection[str]) -> str | None:
    """Return the one name with all words of `wanted`, in the singular or not; or the longest whose words it all has."""
    words = _words(wanted)
    with_more = [name for name in names if words <= _words(name)]
    with_fewer = [name for name in names if len(name) > 1 and _words(name) < words]
    most = max((len(_words(name)) for name in with_fewer), default=0)
    return _only(with_more) or _only([name for name in with_fewer if len(_words(name)) == most])


def _words(plain: str) -> frozenset[str]:
    return frozenset(word.removesuffix("s") for word in plain.split("_"))


def _only(found: list[str]) -> str | None:
    return found[0] if len(found) == 1 else None
