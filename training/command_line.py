"""From what was typed to a Command: argument groups, and the combinations that contradict each other."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from training.options import SETTINGS, Options, setting_type
from training.setting import Setting
from training.yaml_settings import SettingsFile, read_settings_file
from utils.errors import EXIT_USAGE, UserError

_EXAMPLES = """\
examples:
  # first try: the built-in corpus, a small front-end, a few minutes on 2 cores
  python main.py --lr 1e-3 --warmup_steps 50 --num_epochs 5 --comment first

  # ASVspoof 2019 LA with XLS-R; repeat the same command after any interruption
  nohup python main.py --database_path /data/LA --auto_resume --comment xlsr &

  # what is there, and going on from one file, or from the best of a folder
  python main.py --list_checkpoints --comment xlsr
  python main.py --validate_checkpoints models/RUN
  python main.py --resume --model_path models/RUN/checkpoint_epoch_10.pth
  python main.py --resume --model_path models/RUN --load_checkpoint_type best

  # new training that starts from trained weights
  python main.py --model_path models/RUN/best_model_eer.pth --comment finetuned

  # the figures of any score file, by the official definitions
  python main.py --metrics scores.txt --keys keys/LA/CM/trial_metadata.txt

signals:
  Ctrl-C and SIGTERM finish the step, save and leave; SIGUSR1 saves and goes on

exit codes:
  0 done, or nothing left to do; 1 failed; 2 usage; 130 Ctrl-C; 143 SIGTERM
"""

_HELP_COLUMNS = 120
_METRICS_FLAGS = ("keys", "asv_scores", "subset", "plots")
_GROUPS = {
    "data": "data",
    "detector": "detector (cannot change on resume)",
    "training": "training",
    "machine": "machine",
    "saving": "saving (nothing is deleted before what replaces it is on disk and verified)",
    "run": "run",
    "heatmaps": "attention heatmaps",
}


class Action(enum.Enum):
    """Which of the four checkpoint flags was given."""

    DEFAULT = ""  # none of them: a fresh run
    FRESH_START = "--fresh_start"
    RESUME = "--resume"
    AUTO_RESUME = "--auto_resume"
    LIST_CHECKPOINTS = "--list_checkpoints"


class Look(enum.Enum):
    """Which of the flags was given that use files, whatever run they belong to, and train nothing."""

    INSPECT_CHECKPOINT = "--inspect_checkpoint"
    VALIDATE_CHECKPOINTS = "--validate_checkpoints"
    EXPORT = "--export"
    METRICS = "--metrics"


# What --metrics measures: a part of the keys (trial_keys.SUBSETS, which would import NumPy here).
_SUBSETS = ("eval", "progress", "hidden", "all")


@dataclass(frozen=True)
class MetricsFlags:
    """What was given beside --metrics; None where it was not."""

    keys: Path | None = None
    asv_scores: Path | None = None
    subset: str | None = None
    plots: Path | None = None


@dataclass(frozen=True)
class Command:
    """What was asked for: settings, which of them were given by flag or file, and what to do with checkpoints.

    `looked_at` is the path behind the flag that `look` names, None where there is none. With a `look`, `action` is
    DEFAULT and means nothing. --export names a format, of which there is one; its file is `model_path`, and
    `export_path` where the result goes, None for the default. `given` names the settings that flags or the file
    `config` gave, and `typed` those that flags gave; `arguments` are all the words of the command line.
    """

    options: Options
    given: frozenset[str] = frozenset()
    action: Action = Action.DEFAULT
    model_path: Path | None = None
    load_checkpoint_type: str = "last"
    look: Look | None = None
    looked_at: Path | None = None
    export_path: Path | None = None
    as_json: bool = False
    config: SettingsFile | None = None
    typed: frozenset[str] = frozenset()
    arguments: tuple[str, ...] = ()
    metrics_flags: MetricsFlags = MetricsFlags()


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps most flags and their help on one line, and lines readable on wide terminals."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _HELP_COLUMNS)
        super().__init__(prog, max_help_position=28, width=width - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap the one-line texts under group titles, and leave the examples as they are written."""
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n(python main.py --help lists every flag)", EXIT_USAGE)


def read_command(arguments: Sequence[str] | None = None) -> Command:
    """Parse the command line (sys.argv by default).

    Raises UserError with exit code 2 for what contradicts itself, and SystemExit after --help.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    typed = vars(build_parser().parse_args(arguments))
    actions = [action for action in Action if typed.pop(action.name.lower(), False)]
    looked_at = {look: typed.pop(look.name.lower()) for look in Look if look.name.lower() in typed}
    action = actions[0] if actions else Action.DEFAULT
    look = next(iter(looked_at), None)
    model_path, export_path = typed.pop("model_path", None), typed.pop("export_path", None)
    as_json = typed.pop("json", False)
    _refuse_contradictions([*actions, *looked_at], model_path, export_path, as_json)
    beside_metrics = {name: typed.pop(name) for name in _METRICS_FLAGS if name in typed}
    if beside_metrics and look is not Look.METRICS:
        raise UserError(f"--{next(iter(beside_metrics))} goes with --metrics SCORES: pass that, too", EXIT_USAGE)
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
        looked_at=looked_at[look] if look and look is not Look.EXPORT else None,
        export_path=export_path,
        as_json=as_json,
        config=config,
        typed=frozenset(typed),
        arguments=tuple(arguments),
        metrics_flags=MetricsFlags(**beside_metrics),
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
    if isinstance(flag, Look) and flag is not Look.EXPORT and model_path is not None:
        raise UserError(
            f"{flag.value} does not use --model_path: write the path behind it, {flag.value} {model_path}", EXIT_USAGE
        )
    told = (Action.LIST_CHECKPOINTS, Look.INSPECT_CHECKPOINT, Look.VALIDATE_CHECKPOINTS)
    if as_json and flag not in told:
        raise UserError(
            f"--json goes with {told[0].value}, {' or '.join(look.value for look in told[1:])}: pass one of them",
            EXIT_USAGE,
        )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; a flag that was not typed leaves no trace in the namespace."""
    parser = _Parser(
        prog="main.py",
        usage="python main.py [flags]",
        description="Train a speech deepfake detector, stopped and resumed at will.",
        epilog=_EXAMPLES,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    _add_checkpoint_flags(parser)
    _add_metrics_flags(parser)
    groups = {key: parser.add_argument_group(title) for key, title in _GROUPS.items()}
    for option in dataclasses.fields(Options):
        _add_setting(groups[SETTINGS[option.name].group], option)
    groups["run"].add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with settings as `name: value` lines, those of saving under `checkpoint:` too, where "
        "`resume_from: PATH` acts as --resume --model_path PATH; flags win over it (default: none)",
    )
    groups["run"].add_argument("-h", "--help", action="help", help="show this and exit")
    return parser


def _add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "checkpoints",
        "At most one of the first seven, or --metrics. Without any of them a fresh run starts at epoch 1; "
        "an earlier run of the same name is moved aside, never deleted.",
    )
    group.add_argument("--resume", action="store_true", help="continue from --model_path, to the same bits")
    group.add_argument(
        "--fresh_start", action="store_true", help="start at epoch 1; with --model_path, from those weights"
    )
    group.add_argument(
        "--auto_resume", action="store_true", help="continue from the latest usable checkpoint; none there: start fresh"
    )
    group.add_argument(
        "--list_checkpoints", action="store_true", help="print the checkpoints of the run that the flags name, and exit"
    )
    group.add_argument(
        Look.INSPECT_CHECKPOINT.value,
        type=Path,
        metavar="PATH",
        help="print what a file holds, or the last checkpoint of a run folder, and exit (default: none)",
    )
    group.add_argument(
        Look.VALIDATE_CHECKPOINTS.value,
        type=Path,
        nargs="?",
        const=None,
        metavar="PATH",
        help="check every bit of a file or run folder, and exit, with 1 if any is bad (default: the run of the flags)",
    )
    group.add_argument(
        Look.EXPORT.value,
        choices=("checkpoint",),
        help="write the checkpoint --model_path as one whole file, frozen weights in it, and exit (default: none)",
    )
    group.add_argument(
        "--export_path", type=Path, metavar="FILE", help="where --export writes (default: NAME_whole.pth beside it)"
    )
    group.add_argument(
        "--json", action="store_true", help="with a flag that lists, inspects, validates or measures: print JSON for scripts"
    )
    group.add_argument(
        "--model_path",
        type=Path,
        metavar="PATH",
        help="checkpoint, run folder or file of weights to start from (default: none)",
    )
    group.add_argument(
        "--load_checkpoint_type",
        choices=("last", "best"),
        help="which checkpoint of the folder that --model_path names (default: last)",
    )


def _add_metrics_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("metrics of a score file, whatever wrote it")
    group.add_argument(
        Look.METRICS.value,
        type=Path,
        metavar="SCORES",
        help="print EER, minDCF, actDCF, Cllr and min t-DCF, by attack and codec too, and exit (default: none)",
    )
    group.add_argument(
        "--keys", type=Path, metavar="FILE", help="protocol or key file (default: the keys in SCORES, if it has them)"
    )
    group.add_argument(
        "--asv_scores", type=Path, metavar="FILE", help="ASV score file for the t-DCF (default: rates of ASVspoof 5)"
    )
    group.add_argument(
        "--subset", choices=_SUBSETS, help="part of the keys (default: eval if they name subsets, else all)"
    )
    group.add_argument("--plots", type=Path, metavar="FOLDER", help="write DET curve and histogram (default: none)")


def _add_setting(group: argparse._ArgumentGroup, option: dataclasses.Field[Any]) -> None:
    declared: Setting = SETTINGS[option.name]
    kind = setting_type(option.name)
    if kind is bool:
        group.add_argument(f"--{option.name}", action=argparse.BooleanOptionalAction, help=_help(option, declared))
        return
    choices = declared.choices or None
    metavar = None if choices else {int: "N", float: "X", str: "TEXT", tuple: "N,N"}[kind]
    read = whole_numbers if kind is tuple else kind
    group.add_argument(f"--{option.name}", type=read, choices=choices, metavar=metavar, help=_help(option, declared))


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers between commas; argparse adds the flag's name to the words of a refusal.

    >>> whole_numbers("10, 25")
    (10, 25)
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers between commas, such as 10,25,50, found {text!r}"
        ) from error


def _help(option: dataclasses.Field[Any], declared: Setting) -> str:
    text = declared.help.replace("%", "%%")
    return text if "(default" in text or option.default is None else f"{text} (default: {option.default})"
