"""The shape of a vocoder's networks as checkpoints keep it, so that they are built again whatever the sizes become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from models.hifigan import VocoderShape

SHAPE = "vocoder_shape"
"""The key of the payload."""


def stored_shape(shape: VocoderShape) -> dict[str, Any]:
    """Return a shape as plain values."""
    return asdict(shape)


def shape_in(payload: Mapping[str, Any]) -> VocoderShape:
    """Return the shape of the networks that a payload is of."""
    return VocoderShape(**{name: _tuples(value) for name, value in payload[SHAPE].items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
