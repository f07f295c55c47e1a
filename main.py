"""Train a speech deepfake detector from the command line, stopped and resumed at will.

This file is the story: read what was asked, look at what is on disk, decide, say so, then do it. It is short so that it
can be read whole; torch is imported only where training begins, which keeps --help and --list_checkpoints instant.

PYTHON_ARGCOMPLETE_OK: this word lets bash and zsh complete the flags.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from training.checkpoints.inspection import inspect_file
from training.checkpoints.verified_file import VerifiedFile
from training.commands.inspection_text import find_file, inspection_document, inspection_text
from training.commands.listing import list_document, list_text
from training.commands.validation import find_files
from training.commands.validation_report import report_as_json, report_in_lines
from training.planning.announcements import changes_text, plan_text, reached_text, resume_summary
from training.planning.facts import collect_facts
from training.planning.plan import Plan, Start, decide
from training.runs.experiments import other_experiments, other_versions, run_to_look_at
from training.runs.finding import find_source
from training.runs.survey import other_run_folders, survey_folder
from training.settings.command import WHOLE_CHECKPOINT, Action, Command, Look
from training.settings.command_line import read_command
from utils.audio.finding import find_audio_files
from utils.console import drop_unread_output, prepare_output, say
from utils.errors import EXIT_FAILURE, EXIT_INTERRUPTED, UserError
from utils.interruption import ignore_save_requests
from utils.json_text import json_text
from utils.terminal_text import bytes_text

if TYPE_CHECKING:
    from training.evaluation.score_report import ScoreReport


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 130 Ctrl-C, 143 SIGTERM."""
    way_on = ""
    try:
        command = read_command(arguments)
        look = LOOKS.get(command.look or command.action)
        if look:
            return look(command)
        way_on = "; --auto_resume goes on from the last checkpoint"
        plan = decide(command, collect_facts(command))
        announce(plan)
        return carry_out(plan)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"\nStopped at once{way_on}", file=sys.stderr, flush=True)
        return EXIT_INTERRUPTED


def list_checkpoints(command: Command) -> int:
    """Print the checkpoints of the run that the flags name, or of the folder that --model_path names."""
    path = command.model_path
    if path and not path.exists():
        raise UserError(f"--model_path {path} does not exist: pass a run folder or a file in it")
    run = survey_folder(path.parent if path.is_file() else path) if path else run_to_look_at(command.options)
    other_runs = [*other_run_folders(run.folder), *other_experiments(run.folder)]
    versions = other_versions(run.folder)
    say(
        json_text(list_document(run, other_runs, versions)) if command.as_json else list_text(run, other_runs, versions)
    )
    return 0


def inspect_checkpoint(command: Command) -> int:
    """Print what one checkpoint file holds, and fail if something is wrong with it."""
    assert command.looked_at is not None
    found = inspect_file(find_file(command.looked_at, command.load_checkpoint_type))
    say(json_text(inspection_document(found)) if command.as_json else inspection_text(found))
    if found.problems:
        raise UserError(f"{found.path} cannot be used: {'; '.join(found.problems)}")
    return 0


def validate_checkpoints(command: Command) -> int:
    """Check every bit of a file, of a run folder's files or of the run that the flags name; fail if any is bad."""
    folder = command.looked_at or run_to_look_at(command.options).folder
    report = report_as_json if command.as_json else report_in_lines
    all_good = report(find_files(folder))
    if not command.as_json:
        for version in other_versions(folder):
            say(f"Not checked, another version: {version}")
    return 0 if all_good else EXIT_FAILURE


def export_checkpoint(command: Command) -> int:
    """Write a checkpoint as one whole file, which resumes without the frozen weights that it refers to.

    Or write its detector in a format that other programs read.
    """
    assert command.model_path is not None
    source = find_source(command.model_path, command.load_checkpoint_type)
    if command.export_format != WHOLE_CHECKPOINT:
        return export_detector(command, source)
    from training.export import whole_checkpoint  # noqa: PLC0415  (imports torch, 2 s)

    written = whole_checkpoint.export_checkpoint(source, command.export_path)
    say(f"Exported {source.path} to {written} ({bytes_text(written.stat().st_size)}): it needs no other file")
    return 0


def export_detector(command: Command, source: VerifiedFile) -> int:
    """Write the detector of a checkpoint for other programs, proved to be the same on noise and on speech."""
    from training.export import exporting, report  # noqa: PLC0415  (imports torch, 2 s)

    assert command.export_format is not None
    audio = command.options.database_path if "database_path" in command.given else None
    exported = exporting.export_detector(source, command.export_format, command.export_path, audio)
    say(report.export_text(exported, source.path))
    return 0


def check_data(command: Command) -> int:
    """Look through the corpus that training would use, every file of it; fail if training would."""
    from training.data import check, report, verdict  # noqa: PLC0415  (import NumPy and soundfile)

    options = command.options
    database = check.database_to_check(command.looked_at, options.database_path, "database_path" in command.typed)
    protocols = Path(options.protocols_path) if options.protocols_path else None
    corpora = check.check_data(database, protocols, num_threads=max(1, options.num_workers))
    text = json_text(report.report_document(corpora)) if command.as_json else report.report_text(corpora)
    say(text)
    return 0 if verdict.would_run(corpora) else EXIT_FAILURE


def measure_scores(command: Command) -> int:
    """Print the figures of a score file against its keys."""
    from training.evaluation.score_report import measure_files  # noqa: PLC0415  (imports NumPy)

    assert command.looked_at is not None
    flags = command.metrics_flags
    return print_report(measure_files(command.looked_at, flags.keys, flags.asv_scores, flags.subset), command)


def print_report(report: ScoreReport, command: Command) -> int:
    """Print the figures of a score file, and draw them where --plots asks for it."""
    from training.evaluation.score_report import report_document, report_text  # noqa: PLC0415  (imports NumPy)

    flags = command.metrics_flags
    say(json_text(report_document(report)) if command.as_json else report_text(report))
    if flags.plots:
        from training.evaluation.score_figures import draw_score_figures  # noqa: PLC0415  (imports matplotlib)

        for path in draw_score_figures(report, flags.plots):
            if not command.as_json:
                say(f"Wrote {path}")
    return 0


def evaluate(command: Command) -> int:
    """Score an evaluation set with a trained detector and print the figures."""
    from training.evaluation.evaluation import evaluate as carry_out_evaluation  # noqa: PLC0415  (imports torch, 2 s)

    done = carry_out_evaluation(command)
    if done.report is None:
        if not done.exit_code:
            say(_without_figures(done.output, command.as_json))
        return done.exit_code
    return print_report(done.report, command)


def _without_figures(scores: Path, as_json: bool) -> str:
    if as_json:
        return json_text({"scores": {"path": str(scores)}})
    return f"The trials have no keys, so there are no figures: --metrics {scores} --keys FILE gives them"


def score_own_audio(command: Command) -> int:
    """Score own audio files with a trained detector and print a table."""
    found = find_audio_files(command.own_audio, Look.SCORE.value)
    from training.evaluation import own_audio  # noqa: PLC0415  (imports torch, 2 s)

    return own_audio.score_own_audio(command, found)


LOOKS: Mapping[Action | Look, Callable[[Command], int]] = {
    Action.LIST_CHECKPOINTS: list_checkpoints,
    Look.INSPECT_CHECKPOINT: inspect_checkpoint,
    Look.VALIDATE_CHECKPOINTS: validate_checkpoints,
    Look.EXPORT: export_checkpoint,
    Look.CHECK_DATA: check_data,
    Look.METRICS: measure_scores,
    Look.EVAL: evaluate,
    Look.SCORE: score_own_audio,
}
"""Commands that train nothing. Only --export and --eval write files, and only they and --score import torch."""


def announce(plan: Plan) -> None:
    """Say what will be done and why, before anything is created, loaded or written."""
    say(plan_text(plan))
    if plan.changes and plan.start is Start.RESUME:
        say(changes_text(plan.changes))
    if plan.start is Start.RESUME:
        say(resume_summary(plan))


def carry_out(plan: Plan) -> int:
    """Do what was announced."""
    if plan.start is Start.REACHED:
        say(reached_text(plan))
        if not plan.undone and not plan.options.visualize_attention:
            return 0
    from training.loop import session  # noqa: PLC0415  (imports torch, 2 s)

    if plan.start is Start.REACHED:
        if plan.undone:
            session.finish(plan)
            plan = replace(plan, opened=None)  # loaded by that
        if plan.options.visualize_attention:
            session.draw_heatmaps(plan)
        return 0
    return session.carry_out(plan)


if __name__ == "__main__":
    prepare_output()
    ignore_save_requests()
    try:
        sys.exit(main())
    finally:
        drop_unread_output()
