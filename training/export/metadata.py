"""What an exported file says of itself: strings by name, the same in every format; what is unknown is left out."""

from __future__ import annotations

import json
from dataclasses import asdict

from models.detector import Detector
from training.checkpoints.decision import Decision
from training.checkpoints.record import CheckpointRecord
from utils.audio.waveforms import CROP_SAMPLES, SAMPLE_RATE_HZ
from utils.version import PROGRAM

LABELS = ("spoof", "bonafide")
"""The names of the columns of the log-probabilities, in their order."""


def file_metadata(
    record: CheckpointRecord, detector: Detector, any_length: bool, decision: Decision | None
) -> dict[str, str]:
    """Return what is written into the file.

    `samples` is the length that the detector was trained on, and the only one that the file takes unless `length` is
    "any". `val_eer_percent` is that of exactly these weights: it is left out where they were not validated, as
    `decision` is where the checkpoint stores none: the JSON of Decision.as_dict, with the slope `scale` and the
    `offset` of the log-likelihood ratio. `threshold` is the score above which the verdict is bona fide for an even
    prior; it is left out where there is no verdict. `settings`, those of the detector alone, and `front_end_config` are
    JSON: what rebuilds it. No path of this machine is there but
    that of a local --ssl_model.
    """
    val_eer = val_eer_percent(record)
    rule = decision.rule() if decision else None
    facts: dict[str, str | None] = {
        "program": PROGRAM,
        "model_type": record.options.model_type,
        "labels": ",".join(LABELS),
        "score": "log p(bonafide) - log p(spoof), natural logarithms; higher is bona fide",
        "threshold": repr(rule.threshold) if rule else None,
        "decision": json.dumps(decision.as_dict(), sort_keys=True) if decision else None,
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "samples": str(CROP_SAMPLES),
        "length": "any" if any_length else "fixed",
        "source": record.path.name,
        "epoch": str(record.epoch),
        "step": str(record.step),
        "val_eer_percent": None if val_eer is None else repr(val_eer),
        "settings": json.dumps(asdict(detector.settings), sort_keys=True),
        "front_end_config": json.dumps(detector.front_end_config, sort_keys=True),
    }
    return {name: value for name, value in facts.items() if value is not None}


def val_eer_percent(record: CheckpointRecord) -> float | None:
    """Return the validation EER of exactly the weights in the file, None where they were not validated."""
    if record.validated:
        return record.validated["val_eer"]
    return record.last["val_eer"] if record.last and record.last.step == record.step else None
