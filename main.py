"""Train a speech deepfake detector from the command line, stopped and resumed at will.

This file is the story: read what was asked, look at what is on disk, decide, say so, then do it. It is short so that it
can be read whole; torch is imported only where training begins, which keeps --help and --list_checkpoints instant.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from training.announcements import changes_text, plan_text, reached_text, resume_summary
from training.command_line import Action, Command, read_command
from training.facts import collect_facts
from training.listing import list_text
from training.plan import Plan, Start, decide
from training.run_directory import RunDirectory
from training.survey import other_run_folders, survey_folder
from utils.console import say
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
    """Print the checkpoints of the run that the flags name."""
    folder = RunDirectory.of(command.options).folder
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
        return 0
    from training import session  # noqa: PLC0415  (imports torch, 2 s)

    return session.carry_out(plan)


def prepare_output() -> None:
    """Let no output end a run: a terminal without emoji shows "?", and one that was closed shows nothing."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  (None if file descriptor 1 is closed)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def drop_unread_output() -> None:
    """Discard what a reader that went away (`| head -1`) did not take, which the interpreter would complain of."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    prepare_output()
    try:
        sys.exit(main())
    finally:
        drop_unread_output()
