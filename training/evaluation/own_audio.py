"""What --score does: load the detector, score file after file, and say each result as soon as it is there."""

from __future__ import annotations

from training.evaluation.file_scores import FileScore, count_windows, score_files
from training.evaluation.score_table import ScoreTable, head_text, score_document, summary_text
from training.evaluation.subject import load_subject
from training.settings.requests import Score
from utils.audio.finding import FoundAudio
from utils.console import say
from utils.ending import stop_of
from utils.errors import EXIT_FAILURE
from utils.json_text import json_text
from utils.progress import progress
from utils.ranks import Ranks


def score_own_audio(command: Score, found: FoundAudio, ranks: Ranks) -> int:
    """Score the files with the command's detector and return the exit code: 1 if one has no score, or that of a stop.

    Several processes share the batches out, and the first says what came of it. Ctrl-C or SIGTERM ends it at once; what
    is scored by then has been printed, or is in the JSON. Raises UserError where there is no detector.
    """
    subject = load_subject(command)
    table = ScoreTable(found.files, subject.judge)
    tell = (lambda _: None) if command.as_json else say
    tell(f"{head_text(subject, found)}\n\n{table.head()}")
    scored: list[FileScore] = []
    exit_code = 0
    try:
        with progress("scoring", count_windows(found.files), unit="windows") as bar:
            for one in score_files(subject, found.files, bar, ranks):
                scored.append(one)
                bar.make_way()
                tell(table.row(one))
    except KeyboardInterrupt as stopped:
        exit_code = 128 + stop_of(stopped)
    tell(f"\n{summary_text(scored, len(found.files), subject.judge)}")
    if command.as_json and ranks.is_first:
        say(json_text(score_document(subject, scored, found)))
    return exit_code or (EXIT_FAILURE if any(one.fault for one in scored) else 0)
