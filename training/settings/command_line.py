"""From what was typed to the request of one verb; combinations that contradict each other are refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.settings.data import DEMO_DATABASE
from training.settings.flags import build_parser
from training.settings.options import Options
from training.settings.requests import (
    AutoResume,
    CheckData,
    Evaluate,
    Export,
    InspectCheckpoint,
    ListCheckpoints,
    MakeSpoofs,
    Metrics,
    NewRun,
    Request,
    Resume,
    Score,
    ValidateCheckpoints,
)
from training.settings.yaml_settings import SettingsFile, read_settings_file
from utils.errors import EXIT_USAGE, UserError


@dataclass(frozen=True)
class _Beside:
    """A flag that means something beside some verbs only, and the words that refuse it beside another one."""

    name: str
    goes_with: tuple[str, ...]
    refusal: str  # {verb}: the flag typed instead, {verbs}: those of `goes_with`, {value}: what stands behind the flag


_TRAINING = ("", "fresh_start", "resume", "auto_resume")
_GOES_WITH = (
    _Beside("export_path", ("export",), "--export_path goes with --export: pass --export checkpoint, or drop it"),
    _Beside(
        "model_path",
        (*_TRAINING, "list_checkpoints", "export", "eval", "score", "make_spoofs"),
        "{verb} does not use --model_path: write the path behind it, {verb} {value}",
    ),
    _Beside(
        "accept_changed_audio",
        ("resume", "auto_resume"),
        "--accept_changed_audio goes with {verbs}: pass one of them, or drop it",
    ),
    _Beside(
        "as_json",
        (
            "list_checkpoints",
            "inspect_checkpoint",
            "validate_checkpoints",
            "check_data",
            "eval",
            "score",
            "metrics",
        ),
        "--json goes with {verbs}: pass one of them",
    ),
    _Beside("keys", ("metrics", "eval"), "--keys goes with --metrics SCORES: pass that, too"),
    _Beside("keys", ("metrics",), "--keys goes with --metrics: --eval takes trials and keys as --protocols_path"),
    _Beside("asv_scores", ("metrics", "eval"), "--asv_scores goes with --metrics SCORES: pass that, too"),
    _Beside("subset", ("metrics", "eval"), "--subset goes with --metrics SCORES: pass that, too"),
    _Beside("plots", ("metrics", "eval"), "--plots goes with --metrics SCORES: pass that, too"),
    _Beside("vocoders", ("make_spoofs",), "--vocoders goes with --make_spoofs FOLDER: pass that, too, or drop it"),
    _Beside("prior", ("eval", "score"), "--prior goes with {verbs}: pass one of them, or drop it"),
    _Beside("eval_output", ("eval",), "--eval_output goes with --eval: pass that, too, or drop it"),
    _Beside(
        "average_checkpoints",
        ("eval", "score"),
        "--average_checkpoints goes with {verbs} and is 2 or more, found {value}",
    ),
)
_NEEDS_MODEL_PATH = {
    "resume": "--resume needs a checkpoint: pass --model_path FILE, "
    "or use --auto_resume to continue the latest of this run",
    "export": "--export needs a checkpoint: pass --model_path FILE, or --model_path FOLDER",
}


@dataclass(frozen=True)
class _Line:
    """A command line that has been read: what stands behind the flag of its verb, the flags beside it, the settings.

    `beside` has only flags that go with the verb, under the names that they have in its request.
    """

    behind: Any
    beside: Mapping[str, Any]
    load_checkpoint_type: str
    options: Options
    given: frozenset[str]
    typed: frozenset[str]
    config: SettingsFile | None
    arguments: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        names = ("options", "given", "typed", "load_checkpoint_type")
        return {name: getattr(self, name) for name in names}

    @property
    def training(self) -> dict[str, Any]:
        return {**self.settings, "config": self.config, "arguments": self.arguments}


def read_command(arguments: Sequence[str] | None = None) -> Request:
    """Parse the command line (sys.argv by default).

    Raises UserError with exit code 2 for what contradicts itself, and SystemExit after --help.
    """
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could be typed next; this answers and ends the process
        import argcomplete  # noqa: PLC0415

        argcomplete.autocomplete(parser)
    typed = parser.read(arguments)
    verbs = [name for name in _REQUESTS if name in typed]
    verb = verbs[0] if verbs else ""
    behind = typed.pop(verb, None)
    beside = {row.name: typed.pop(row.name) for row in _GOES_WITH if row.name in typed}
    _refuse_contradictions(verbs, beside)
    checkpoint_type = typed.pop("load_checkpoint_type", "last")
    config = read_settings_file(typed.pop("config")) if "config" in typed else None
    if config and config.resume_from and not verb and "model_path" not in beside:
        verb, beside["model_path"] = "resume", config.resume_from
    given = {**(config.settings if config else {}), **typed}
    line = _Line(
        behind, beside, checkpoint_type, Options(**given), frozenset(given), frozenset(typed), config, arguments
    )
    return _REQUESTS[verb](line)


def _refuse_contradictions(verbs: Sequence[str], beside: Mapping[str, Any]) -> None:
    if len(verbs) > 1:
        raise UserError(
            f"--{verbs[0]} and --{verbs[1]} contradict each other: pass one of them, see --help", EXIT_USAGE
        )
    verb = verbs[0] if verbs else ""
    if verb in _NEEDS_MODEL_PATH and "model_path" not in beside:
        raise UserError(_NEEDS_MODEL_PATH[verb], EXIT_USAGE)
    for row in _GOES_WITH:
        if row.name in beside and verb not in row.goes_with:
            *others, last = (f"--{name}" for name in row.goes_with)
            named = f"{', '.join(others)} or {last}" if others else last
            raise UserError(row.refusal.format(verb=f"--{verb}", verbs=named, value=beside[row.name]), EXIT_USAGE)


def _list_checkpoints(line: _Line) -> ListCheckpoints:
    beside = dict(line.beside)
    return ListCheckpoints(place=beside.pop("model_path", line.options), **beside)


def _export(line: _Line) -> Export:
    audio = line.options.database_path if "database_path" in line.given else None
    return Export(format_name=line.behind, load_checkpoint_type=line.load_checkpoint_type, audio=audio, **line.beside)


def _check_data(line: _Line) -> CheckData:
    options, path = line.options, line.behind
    is_typed = "database_path" in line.typed
    if path is not None and is_typed and os.path.realpath(path) != os.path.realpath(options.database_path):
        raise UserError(
            f"--check_data {path} and --database_path {options.database_path} both name a corpus: pass one of them",
            EXIT_USAGE,
        )
    if path is None and options.database_path != DEMO_DATABASE:
        path = Path(options.database_path)
    protocols = Path(options.protocols_path) if options.protocols_path else None
    threads = max(1, options.num_workers)
    return CheckData(corpus=path, protocols=protocols, num_threads=threads, label_1=options.label_1, **line.beside)


def _make_spoofs(line: _Line) -> MakeSpoofs:
    beside = dict(line.beside)
    return MakeSpoofs(folder=line.behind, vocoders=tuple(beside.pop("vocoders", ())), **line.settings, **beside)


# The flags of which one may be typed, in the order in which a refusal names two of them, and what each asks for.
_REQUESTS: Mapping[str, Callable[[_Line], Request]] = {
    "": lambda line: NewRun(**line.training, **line.beside),
    "fresh_start": lambda line: NewRun(fresh_start=True, **line.training, **line.beside),
    "resume": lambda line: Resume(**line.training, **line.beside),
    "auto_resume": lambda line: AutoResume(**line.training, **line.beside),
    "list_checkpoints": _list_checkpoints,
    "inspect_checkpoint": lambda line: InspectCheckpoint(
        place=line.behind, load_checkpoint_type=line.load_checkpoint_type, **line.beside
    ),
    "validate_checkpoints": lambda line: ValidateCheckpoints(place=line.behind or line.options, **line.beside),
    "export": _export,
    "metrics": lambda line: Metrics(scores=line.behind, label_1=line.options.label_1, **line.beside),
    "eval": lambda line: Evaluate(**line.settings, **line.beside),
    "score": lambda line: Score(own_audio=tuple(line.behind), **line.settings, **line.beside),
    "check_data": _check_data,
    "make_spoofs": _make_spoofs,
}
