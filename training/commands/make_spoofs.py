"""--make_spoofs: copies the bona fide speech of a corpus through vocoders, into a corpus of its own."""

from __future__ import annotations

from training.settings.requests import MakeSpoofs


def run(request: MakeSpoofs) -> int:
    """Make the spoofs and return the exit code."""
    from training.spoofs.making import make_spoofs  # noqa: PLC0415  (imports NumPy and SciPy)

    return make_spoofs(request)
