"""--score: scores own audio files with a trained detector and prints a table."""

from __future__ import annotations

from training.planning.agreement import refuse_other_commands
from training.settings.requests import Score
from utils.audio.finding import find_audio_files
from utils.ranks import Ranks


def run(request: Score, ranks: Ranks) -> int:
    """Find the files, before anything slow, score them and return the exit code."""
    refuse_other_commands(ranks, request)
    found = find_audio_files(request.own_audio, request.flag)
    from training.evaluation import own_audio  # noqa: PLC0415  (imports torch, 2 s)

    return own_audio.score_own_audio(request, found, ranks)
