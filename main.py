"""Train a speech deepfake detector from the command line, stopped and resumed at will.

This file is the story: read what was asked, look at what is on disk, decide, say so, then do it. It is short so that it
can be read whole; torch is imported only where training begins, which keeps --help and --list_checkpoints instant.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from training.announcements import changes_text, plan_text, reached_text, resume_summary
from training.command_line import Action, Command, read_command
from training.facts import collect_facts
from training.listing import list_text
from training.plan import Plan, Start, decide
from training.run_directory import RunDirectory
from training.survey import other_run_folders, survey_folder
from utils.console import drop_unread_output, prepare_output, say
from utils.errors import UserError

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 130 Ctrl-C, 143 SIGTERM."""
    try:
        command = read_command(arguments)
        if command.action is Action.LIST_CHECKPOINTS:
            return list_checkpoints(command)
        plan = decide(command, collect_facts(command))
        announce(plan)
        return carry_out(plan)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "\nStopped at once; what was saved before is there: --auto_resume continues it", file=sys.stderr, flush=True
        )
        return EXIT_INTERRUPTED


def list_checkpoints(command: Command) -> int:
    """Print the checkpoints of the run that the flags name, or of the folder that --model_path names."""
    folder = command.model_path or RunDirectory.of(command.options).folder
    folder = folder.parent if folder.is_file() else folder
    say(list_text(survey_folder(folder), other_run_folders(folder)))
    return 0


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
        if not plan.options.visualize_attention:
            return 0
    from training import session  # noqa: PLC0415  (imports torch, 2 s)

    if plan.start is Start.REACHED:
        session.draw_heatmaps(plan)
        return 0
    return session.carry_out(plan)


if __name__ == "__main__":
    prepare_output()
    try:
        sys.exit(main())
    finally:
        drop_unread_output()
