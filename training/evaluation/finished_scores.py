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

SUFFIX = ".origin.json"


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
        content = output.read_bytes()
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
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) else None


def write_finished(output: Path, content: str, origin: Origin, sources: Sequence[Path]) -> Path | None:
    """Write `output` and its origin, and return where other scores of that name are now; None where there were none.

    In this order: the earlier origin gets a second name, then the earlier scores, then the origin is replaced, then the
    scores: they have a name at each moment, whatever a power cut leaves. A kill between any two leaves no scores under
    a wrong origin, since it holds the hash of its own, and the next call goes on with the same new name. Raises
    OSError.
    """
    moved = None
    encoded = content.encode()
    earlier = output.read_bytes() if output.exists() else encoded
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
    encoded = content.encode()
    document = {
        "scores_sha256": hashlib.sha256(encoded).hexdigest(),
        "checkpoints": [str(source) for source in sources],
        "fingerprint": origin.fingerprint,
    }
    if output.exists() and (replaced := output.read_bytes()) != encoded:
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
    return not os.path.lexists(name) or (name.is_file() and name.read_bytes() == earlier)


def _is_free_for(digest: str, origin: Path) -> bool:
    return not os.path.lexists(origin) or (_stored(origin) or {}).get("scores_sha256") == digest
