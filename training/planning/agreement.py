"""What several processes of one run must have in common: command, program, data, and batches to share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from training.settings.options import Options
from training.settings.requests import AutoResume, Evaluate, Score, Train
from utils.errors import EXIT_FAILURE, EXIT_USAGE, UserError
from utils.launch import Launch
from utils.ranks import Ranks
from utils.version import VERSION, source_digest

_ALIKE = "start all processes with the same command, program and data"


def refuse_repeating(request: Train, launch: Launch) -> None:
    """Raise UserError where torchrun was told to repeat a command that would begin anew each time."""
    if launch.most_restarts and not isinstance(request, AutoResume):
        raise UserError(
            f"--max_restarts {launch.most_restarts} of torchrun repeats this command, which would begin anew each "
            "time: add --auto_resume, with which it goes on where it stood",
            EXIT_USAGE,
        )


def refuse_other_commands(ranks: Ranks, request: Train | Evaluate | Score) -> None:
    """Raise UserError, in all processes, where they were given different flags, or are different programs."""
    if ranks.count == 1:
        return
    told: dict[str, Any] = {f"--{name}": value for name, value in request.options.as_dict().items()}
    others = [field.name for field in fields(request) if field.name not in ("options", "config", "arguments")]
    values = {name: getattr(request, name) for name in others}
    told |= {name: sorted(value) if isinstance(value, frozenset) else value for name, value in values.items()}
    program = {"the version of bonafide": VERSION, "the content of its files": source_digest()}
    refuse_differences(ranks, {"the command": type(request).__name__, **told, **program}, EXIT_USAGE)


def refuse_differences(ranks: Ranks, own: Mapping[str, Any], exit_code: int = EXIT_FAILURE) -> None:
    """Raise UserError, in all processes, for the first thing that one of them has otherwise than the first."""
    first, *others = ranks.gather(dict(own))
    for index, other in enumerate(others, start=1):
        for name in {**first, **other}:
            if first.get(name) != other.get(name):
                raise UserError(
                    f"{name} is {first.get(name)} in process 0 and {other.get(name)} in process {index}: {_ALIKE}",
                    exit_code,
                )


def refuse_number_of_ranks(options: Options, num_ranks: int) -> None:
    """Raise UserError where so many processes cannot have the same number of the batches of a step each."""
    batches = options.accumulate_steps
    if batches % num_ranks == 0:
        return
    fitting = [str(number) for number in range(1, batches + 1) if batches % number == 0]
    numbers = f"{', '.join(fitting[:-1])} or {fitting[-1]}" if len(fitting) > 1 else fitting[0]
    what = "1 batch" if batches == 1 else f"{batches} batches"
    raise UserError(
        f"{num_ranks} processes cannot share {what} a step (--accumulate_steps) equally: start {numbers} of them",
        EXIT_USAGE,
    )
