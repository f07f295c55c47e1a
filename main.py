"""Train a speech deepfake detector from the command line, stopped and resumed at will.

This file is the way in: read what was asked, hand it to its verb, print what a user can fix, exit. Each verb is a file
of training/commands/, and training is the story in train.py. torch is imported only where a verb needs it, which keeps
--help and --list_checkpoints instant.

PYTHON_ARGCOMPLETE_OK: this word lets bash and zsh complete the flags.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

if __name__ == "__main__":
    from utils.ending import leave_on_signals

    leave_on_signals()  # while the modules below are imported

from training.commands import (
    check_data,
    evaluate,
    export,
    inspect_checkpoint,
    list_checkpoints,
    make_spoofs,
    metrics,
    score,
    train,
    validate_checkpoints,
)
from training.planning.agreement import refuse_repeating
from training.settings import requests
from training.settings.command_line import read_command
from utils.console import drop_unread_output, prepare_output, silence
from utils.ending import insist_on_stop, leave_now, raise_on_signals, stop_of
from utils.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE, UserError
from utils.interruption import ignore_save_requests
from utils.launch import Launch, find_launch
from utils.memory_shortage import memory_shortage
from utils.processes import is_cut_off, joined, tell_first
from utils.terminal_text import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 130 Ctrl-C, 143 SIGTERM."""
    way_on, launch = "", Launch()
    try:
        launch = find_launch(os.environ)
        request = _read_command(arguments, launch)
        if isinstance(request, requests.Train):
            way_on = "; --auto_resume goes on from the last checkpoint"
        return carry_out(request, launch)
    except UserError as error:
        if not (launch.attempt and error.exit_code == EXIT_USAGE):  # torchrun repeats what no repeating mends
            print(f"error: {one_line(str(error))}", file=sys.stderr, flush=True)
        return error.exit_code
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        shortage = memory_shortage(error)
        if not shortage:
            raise
        print(f"error: {shortage}: pass a lower --batch_size or --num_workers, or end other programs", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt as stopped:
        print(f"\nStopped at once{way_on}", file=sys.stderr, flush=True)
        return 128 + stop_of(stopped)


def _read_command(arguments: Sequence[str] | None, launch: Launch) -> requests.Request:
    """Read the command line; of several processes only the first says what is wrong with it, for all have the same."""
    if launch.is_first:
        return read_command(arguments)
    silence()
    try:
        return read_command(arguments)
    except UserError as error:
        tell_first(launch, error)
        raise


def carry_out(request: requests.Request, launch: Launch) -> int:  # noqa: PLR0911 - one return a verb
    """Hand a request to its verb and return the exit code; what several processes do not share, the first does."""
    match request:
        case requests.NewRun() | requests.Resume() | requests.AutoResume():
            refuse_repeating(request, launch)
            with joined(launch, request.options.device) as ranks:
                return train.run(request, ranks)
        case requests.Evaluate():
            with joined(launch, request.options.device) as ranks:
                return evaluate.run(request, ranks)
        case requests.Score():
            with joined(launch, request.options.device) as ranks:
                return score.run(request, ranks)
        case _ if not launch.is_first:
            return 0
        case requests.ListCheckpoints():
            return list_checkpoints.run(request)
        case requests.InspectCheckpoint():
            return inspect_checkpoint.run(request)
        case requests.ValidateCheckpoints():
            return validate_checkpoints.run(request)
        case requests.Export():
            return export.run(request)
        case requests.CheckData():
            return check_data.run(request)
        case requests.MakeSpoofs():
            return make_spoofs.run(request)
        case requests.Metrics():
            return metrics.run(request)


if __name__ == "__main__":
    prepare_output()
    ignore_save_requests()
    insist_on_stop()
    try:
        raise_on_signals()
        exit_code = main()
        if exit_code >= EXIT_INTERRUPTED or is_cut_off():
            leave_now(exit_code)
        sys.exit(exit_code)
    finally:
        leave_on_signals()
        drop_unread_output()
