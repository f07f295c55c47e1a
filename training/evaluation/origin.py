"""What scores were made of: told by content, so that scores of something else are never taken for those asked for.

What decides on a score is apart from what only rounds it: the batch size, the device, the version of torch. Half a file
of scores is continued where both are the same, to the same bytes; a whole one is recognised by the first alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.evaluation.subject import Subject
from training.tasks.detectors import detector_settings
from utils.corpora import CorpusPart
from utils.many_files import ask_all
from utils.numerics import SCORES_AS_OF

_DIGITS = 16


@dataclass(frozen=True)
class Origin:
    """What decides on scores, and what rounds them: of each thing, its name and a digest or value without spaces."""

    decisive: Mapping[str, str]
    rounding: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """All of it in one line."""
        return " ".join(f"{name}={value}" for name, value in {**self.decisive, **self.rounding}.items())

    def differing(self, fingerprint: str) -> list[str]:
        """Return the names of what is different in another fingerprint, or missing there.

        >>> Origin({"checkpoint": "1f", "audio": "2e"}, {"batch_size": "16"}).differing("checkpoint=1f audio=77")
        ['audio', 'batch_size']
        """
        found = set(fingerprint.split(" "))
        if not any(part.startswith("numerics=") for part in found):
            found.add("numerics=1")  # scores of before there was such a number
        return [name for name, value in {**self.decisive, **self.rounding}.items() if f"{name}={value}" not in found]


def origin_of(subject: Subject, part: CorpusPart) -> Origin:
    """Return what the scores of `part` by `subject` are made of.

    Labels are no part of it, since no score depends on them: scores are measured against the keys of today.
    """
    if len(subject.digests) != len(subject.sources):
        raise ValueError("the origin of scores needs the digest of each file that the detector came from")
    options = subject.options
    decisive = {
        "checkpoint": _digest(list(subject.digests)),
        # Of bare weights the flags give the settings, not the file.
        "detector": _digest(asdict(detector_settings(options))),
        "trials": _digest([trial.utterance for trial in part.protocol.trials]),
        "audio": _digest(ask_all(part.audio_paths, _stamp)),
        "precision": options.precision,
        "numerics": str(SCORES_AS_OF),
    }
    rounding = {
        "batch_size": str(options.batch_size),
        "device": str(subject.device),
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
    }
    return Origin(decisive, rounding)


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:_DIGITS]


def _stamp(path: Path) -> tuple[str, int, int]:
    """Return where a file is, its size in bytes and when it was changed last, in ns; 0 and 0 where it is gone."""
    where = os.path.abspath(path)  # noqa: PTH100
    try:
        status = path.stat()
    except OSError:  # reading it says what is wrong, if its score is asked for at all
        return where, 0, 0
    return where, status.st_size, status.st_mtime_ns
