"""The finished score file, and beside it what its scores were made of, so that nothing is scored twice or lost.

`scores.txt` is the plain official format. `scores.txt.origin.json` has its SHA-256 and its origin; without that file it
counts as scores of something else. Scores of something else are never replaced, they get another name first.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.evaluation.origin import Origin
from utils.atomic_files import atomic_write, link_or_copy, write_text_atomically
from utils.regular_files import is_regular, read_regular
from utils.stored_values import OddValueError, is_text, plain_json, require
from utils.table_bytes import bytes_on_disk

SUFFIX = ".origin.json"
_MOST_BYTES = 1 << 30
_MOST_BYTES_OF_AN_ORIGIN = 1 << 24


@dataclass(frozen=True)
class Found:
    """What lies at the place of a score file: are these scores the ones asked for, and if not, why not."""

    is_same: bool
    remark: str


def origin_path(output: Path) -> Path:
    """Return where it is said what the scores in `output` were made of.

    >>> origin_path(Path("scores.txt")).name
    'scores.txt.origin.json'
    """
    return output.with_name(output.name + SUFFIX)


def look_at(output: Path, origin: Origin) -> Found | None:
    """Compare a finished score file with what is asked for; None where there is none. Raises OSError."""
    try:
        content = read_regular(output, _MOST_BYTES)
    except FileNotFoundError:
        return None
    stored = _stored(origin_path(output))
    if stored is None:
        return Found(False, f"{origin_path(output).name}, which would say of what, is not there")
    if hashlib.sha256(content).hexdigest() not in (stored.get("scores_sha256"), stored.get("replaced_sha256")):
        return Found(False, "they were changed since they were written")
    differing = origin.differing(str(stored.get("fingerprint")))
    foreign = [name for name in differing if name in origin.decisive]
    if foreign:
        return Found(False, f"of another {', '.join(foreign)}")
    return Found(True, f"with another {', '.join(differing)}, which rounds them only" if differing else "")


def _stored(path: Path) -> dict[str, Any] | None:
    try:
        stored = plain_json(read_regular(path, _MOST_BYTES_OF_AN_ORIGIN))
        require(stored, {"scores_sha256": is_text, "fingerprint": is_text})
    except (OSError, OddValueError):
        return None
    return dict(stored)


def write_finished(output: Path, content: str, origin: Origin, sources: Sequence[Path]) -> Path | None:
    """Write `output` and its origin, and return where other scores of that name are now; None where there were none.

    In this order: the earlier origin gets a second name, then the earlier scores, then the origin is replaced, then the
    scores: they have a name at each moment, whatever a power cut leaves. A kill between any two leaves no scores under
    a wrong origin, since it holds the hash of its own, and the next call goes on with the same new name. Raises
    OSError.
    """
    moved = None
    encoded = bytes_on_disk(content)
    earlier = read_regular(output, _MOST_BYTES) if os.path.lexists(output) else encoded
    if earlier != encoded:
        moved = _free_version(output, earlier)
        if origin_path(output).exists() and not os.path.lexists(origin_path(moved)):
            link_or_copy(origin_path(output), origin_path(moved))
        link_or_copy(output, moved)
    lay_out_again(output, content, origin, sources)
    return moved


def lay_out_again(output: Path, content: str, origin: Origin, sources: Sequence[Path]) -> None:
    """Write the origin, then `output`, in the place of the same scores under other columns. Raises OSError.

    The origin names both, so that a kill between the two leaves scores that are known.
    """
    encoded = bytes_on_disk(content)
    document = {
        "scores_sha256": hashlib.sha256(encoded).hexdigest(),
        "checkpoints": [str(source) for source in sources],
        "fingerprint": origin.fingerprint,
    }
    if output.exists() and (replaced := read_regular(output, _MOST_BYTES)) != encoded:
        document["replaced_sha256"] = hashlib.sha256(replaced).hexdigest()
    write_text_atomically(origin_path(output), json.dumps(document, indent=1) + "\n")
    with atomic_write(output) as file:
        file.write(encoded)


def _free_version(output: Path, earlier: bytes) -> Path:
    """Return the first of `scores.version_1.txt`, `scores.version_2.txt` ... that is free; its origin's name too.

    One that has these very scores, or their origin by their hash, is where a killed process was taking them.
    """
    digest = hashlib.sha256(earlier).hexdigest()
    names = (output.with_name(f"{output.stem}.version_{number}{output.suffix}") for number in itertools.count(1))
    return next(name for name in names if _holds(name, earlier) and _is_free_for(digest, origin_path(name)))


def _holds(name: Path, earlier: bytes) -> bool:
    return not os.path.lexists(name) or (is_regular(name) and read_regular(name, _MOST_BYTES) == earlier)


def _is_free_for(digest: str, origin: Path) -> bool:
    return not os.path.lexists(origin) or (_stored(origin) or {}).get("scores_sha256") == digest
