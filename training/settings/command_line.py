"""From what was typed to a Command; combinations that contradict each other are refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.settings.command import Action, Command, Look, MetricsFlags
from training.settings.flags import build_parser
from training.settings.options import Options
from training.settings.yaml_settings import read_settings_file
from utils.errors import EXIT_USAGE, UserError

_METRICS_FLAGS = ("keys", "asv_scores", "subset", "plots")
_OF_MODEL_PATH = (Look.EXPORT, Look.EVAL, Look.SCORE)


def read_command(arguments: Sequence[str] | None = None) -> Command:
    """Parse the command line (sys.argv by default).

    Raises UserError with exit code 2 for what contradicts itself, and SystemExit after --help.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could be typed next; this answers and ends the process
        import argcomplete  # noqa: PLC0415

        argcomplete.autocomplete(parser)
    typed = parser.read(arguments)
    actions = [action for action in Action if typed.pop(action.name.lower(), False)]
    looked_at = {look: typed.pop(look.name.lower()) for look in Look if look.name.lower() in typed}
    action = actions[0] if actions else Action.DEFAULT
    look = next(iter(looked_at), None)
    model_path, export_path = typed.pop("model_path", None), typed.pop("export_path", None)
    as_json = typed.pop("json", False)
    _refuse_contradictions([*actions, *looked_at], model_path, export_path, as_json)
    beside_metrics = {name: typed.pop(name) for name in _METRICS_FLAGS if name in typed}
    if beside_metrics and look not in (Look.METRICS, Look.EVAL):
        raise UserError(f"--{next(iter(beside_metrics))} goes with --metrics SCORES: pass that, too", EXIT_USAGE)
    if "keys" in beside_metrics and look is Look.EVAL:
        raise UserError("--keys goes with --metrics: --eval takes trials and keys as --protocols_path", EXIT_USAGE)
    eval_output = typed.pop("eval_output", None)
    if eval_output and look is not Look.EVAL:
        raise UserError("--eval_output goes with --eval: pass that, too, or drop it", EXIT_USAGE)
    average = typed.pop("average_checkpoints", None)
    if average is not None and (look not in (Look.EVAL, Look.SCORE) or average < 2):
        raise UserError(
            f"--average_checkpoints goes with --eval or --score and is 2 or more, found {average}", EXIT_USAGE
        )
    checkpoint_type = typed.pop("load_checkpoint_type", "last")
    config = read_settings_file(typed.pop("config")) if "config" in typed else None
    if config and config.resume_from and not (actions or look or model_path):
        action, model_path = Action.RESUME, config.resume_from
    given = {**(config.settings if config else {}), **typed}
    return Command(
        options=Options(**given),
        given=frozenset(given),
        action=action,
        model_path=model_path,
        load_checkpoint_type=checkpoint_type,
        look=look,
        looked_at=looked_at[look] if look and look not in _OF_MODEL_PATH else None,
        export_format=looked_at.get(Look.EXPORT),
        export_path=export_path,
        as_json=as_json,
        config=config,
        typed=frozenset(typed),
        arguments=tuple(arguments),
        metrics_flags=MetricsFlags(**beside_metrics),
        eval_output=eval_output,
        average_checkpoints=average,
        own_audio=tuple(looked_at.get(Look.SCORE, ())),
    )


def _refuse_contradictions(
    flags: Sequence[Action | Look], model_path: Path | None, export_path: Path | None, as_json: bool
) -> None:
    if len(flags) > 1:
        raise UserError(
            f"{flags[0].value} and {flags[1].value} contradict each other: pass one of them, see --help", EXIT_USAGE
        )
    flag = flags[0] if flags else Action.DEFAULT
    if flag is Action.RESUME and model_path is None:
        raise UserError(
            "--resume needs a checkpoint: pass --model_path FILE, "
            "or use --auto_resume to continue the latest of this run",
            EXIT_USAGE,
        )
    if flag is Look.EXPORT and model_path is None:
        raise UserError("--export needs a checkpoint: pass --model_path FILE, or --model_path FOLDER", EXIT_USAGE)
    if export_path is not None and flag is not Look.EXPORT:
        raise UserError("--export_path goes with --export: pass --export checkpoint, or drop it", EXIT_USAGE)
    if isinstance(flag, Look) and flag not in _OF_MODEL_PATH and model_path is not None:
        raise UserError(
            f"{flag.value} does not use --model_path: write the path behind it, {flag.value} {model_path}", EXIT_USAGE
        )
    told = (
        Action.LIST_CHECKPOINTS,
        Look.INSPECT_CHECKPOINT,
        Look.VALIDATE_CHECKPOINTS,
        Look.CHECK_DATA,
        Look.EVAL,
        Look.SCORE,
        Look.METRICS,
    )
    if as_json and flag not in told:
        raise UserError(
            f"--json goes with {', '.join(flag.value for flag in told[:-1])} or {told[-1].value}: pass one of them",
            EXIT_USAGE,
        )
