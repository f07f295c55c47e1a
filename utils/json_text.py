"""What --json prints: one JSON document on standard output, for scripts; plain JSON without NaN, in ASCII."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(document: dict[str, Any]) -> str:
    """Return a document as text; a number that JSON does not have becomes its name.

    >>> json_text({"val_loss": float("nan")})
    '{\\n "val_loss": "nan"\\n}'
    """
    return json.dumps(_plain(document), indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
