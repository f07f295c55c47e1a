"""The flags that can be typed, in groups with their help: those of checkpoints and scores, and one for each setting."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from training.settings.options import SETTINGS, Options
from training.settings.parser import HelpFormatter, Parser, Version
from training.settings.requests import EXPORT_FORMATS, SUBSETS
from training.settings.setting_flags import add_setting

_EXAMPLES = """\
examples:
  # first try: the built-in corpus, a small front-end, a few minutes on 2 cores
  python main.py --lr 1e-3 --warmup_steps 50 --num_epochs 5 --comment first

  # ASVspoof 2019 LA with XLS-R; repeat the same command after any interruption
  nohup python main.py --database_path /data/LA --auto_resume --comment xlsr &

  # is the data complete and readable? before a long run
  python main.py --check_data /data/LA

  # spoofs of bona fide speech, and a detector that hears each with its source
  python main.py --make_spoofs OUT --database_path /data/LA --vocoders lpc
  python main.py --database_path OUT --pair_batches

  # what is there, and going on from one file, or from the best of a folder
  python main.py --list_checkpoints --comment xlsr
  python main.py --validate_checkpoints models/RUN
  python main.py --resume --model_path models/RUN/checkpoint_epoch_10.pth
  python main.py --resume --model_path models/RUN --load_checkpoint_type best

  # new training that starts from trained weights
  python main.py --model_path models/RUN/best_model_eer.pth --comment finetuned

  # score the evaluation set of another corpus; repeat it after any interruption
  python main.py --eval --model_path models/RUN --database_path /data/2021

  # is it bona fide? own files and folders of audio, of any rate and length
  python main.py --score interview.mp3 recordings/ --model_path models/RUN

  # the figures of any score file, by the official definitions
  python main.py --metrics scores.txt --keys keys/LA/CM/trial_metadata.txt

signals:
  Ctrl-C and SIGTERM finish the step, save and leave; SIGUSR1 saves and goes on

exit codes:
  0 done, or nothing left to do; 1 failed; 2 usage; 130 Ctrl-C; 143 SIGTERM
"""

_GROUPS = {
    "data": "data",
    "augmentation": "augmentation of training utterances (RawBoost; in brackets: its noise)",
    "detector": "detector (cannot change on resume)",
    "training": "training",
    "machine": "machine",
    "saving": "saving (nothing is deleted before what replaces it is on disk and verified)",
    "run": "run",
    "wandb": "Weights & Biases (pip install -r requirements-wandb.txt)",
    "heatmaps": "attention heatmaps",
}


def build_parser() -> Parser:
    """Return the parser; a flag that was not typed leaves no trace in the namespace."""
    parser = Parser(
        prog="main.py",
        usage="python main.py [flags]",
        description="Train a speech deepfake detector, stopped and resumed at will.",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    _add_checkpoint_flags(parser)
    _add_evaluation_flags(parser)
    _add_metrics_flags(parser)
    groups = {key: parser.add_argument_group(title) for key, title in _GROUPS.items()}
    groups["data"].add_argument(
        "--check_data",
        type=Path,
        nargs="?",
        const=None,
        metavar="PATH",
        help="read all protocols and audio, say what is there, missing or broken, and exit, with 1 if training would "
        "fail (default: --database_path)",
    )
    groups["data"].add_argument(
        "--make_spoofs",
        type=Path,
        metavar="FOLDER",
        help="copy the bona fide speech of --database_path, each part that is there, through --vocoders into FOLDER, a "
        "corpus of its own, and exit, with 1 if any could not be copied; goes on where it was stopped (default: none)",
    )
    groups["data"].add_argument(
        "--vocoders",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="with --make_spoofs: griffin_lim, world (pip install pyworld), lpc, sinusoidal, and checkpoints or run "
        "folders of --model_type hifigan",
    )
    for option in dataclasses.fields(Options):
        add_setting(groups[SETTINGS[option.name].group], option)
    groups["wandb"].add_argument(
        "--no_save_wandb_metadata",
        dest="save_wandb_metadata",
        action="store_false",
        help="the same as --no-save_wandb_metadata (default: they are stored)",
    )
    groups["run"].add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with settings as `name: value` lines, those of saving under `checkpoint:` too, where "
        "`resume_from: PATH` acts as --resume --model_path PATH; flags win over it (default: none)",
    )
    groups["run"].add_argument("-h", "--help", action="help", help="show this and exit")
    groups["run"].add_argument("--version", action=Version, nargs=0, help="show which version this is and exit")
    return parser


def _add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "checkpoints",
        "At most one of the first seven, --check_data, --make_spoofs, --eval, --score or --metrics. Without any of "
        "them a fresh run starts at epoch 1; an earlier run of the same name is moved aside, never deleted.",
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
        "--inspect_checkpoint",
        type=Path,
        metavar="PATH",
        help="print what a file holds, or the last checkpoint of a run folder, and exit (default: none)",
    )
    group.add_argument(
        "--validate_checkpoints",
        type=Path,
        nargs="?",
        const=None,
        metavar="PATH",
        help="check every bit of a file or run folder, and exit, with 1 if any is bad (default: the run of the flags)",
    )
    group.add_argument(
        "--export",
        choices=EXPORT_FORMATS,
        help="write the checkpoint --model_path as one whole file, frozen weights in it, or its detector for other "
        "programs, checked against it on audio of --database_path, and exit (default: none)",
    )
    group.add_argument(
        "--export_path",
        type=Path,
        metavar="FILE",
        help="where --export writes (default: beside it, NAME_whole.pth or NAME with the suffix of the format)",
    )
    group.add_argument(
        "--json",
        dest="as_json",
        action="store_true",
        help="with a flag that lists, inspects, validates, checks, evaluates, scores or measures: print JSON for "
        "scripts",
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
    group.add_argument(
        "--accept_changed_audio",
        action="store_true",
        help="with --resume and --auto_resume: go on in the middle of an epoch although the audio was replaced since",
    )


def _add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "evaluation",
        "Of --model_path, or of the run that the flags name. The detector's settings come from the file.",
    )
    group.add_argument(
        "--eval",
        "--is_eval",
        action="store_true",
        help="score all trials of the evaluation set of --database_path, print the figures of --metrics, and exit; "
        "goes on where it was stopped; --asv_scores, --subset and --plots are as there",
    )
    group.add_argument(
        "--eval_output", type=Path, metavar="FILE", help="where the scores go (default: beside the checkpoint)"
    )
    group.add_argument(
        "--score",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="score own audio files, or all those in folders, print a table, and exit, with 1 if any cannot be read: "
        "any rate and length, channels averaged; a file's score is the mean of the scores of its windows of 64,600 "
        "samples (4.04 s); the verdict is the sign of the calibrated log-likelihood ratio",
    )
    group.add_argument(
        "--prior",
        type=float,
        metavar="P",
        help="how probable bona fide is before anything is heard, between 0 and 1: the verdict is bona fide where the "
        "calibrated log-likelihood ratio exceeds log((1 - P) / P) (default: 0.5, where it exceeds 0)",
    )
    group.add_argument(
        "--average_checkpoints",
        type=int,
        metavar="N",
        help="use the mean of the weights of the last N epochs, or of the best with --load_checkpoint_type best "
        "(default: one checkpoint)",
    )


def _add_metrics_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("metrics of a score file, whatever wrote it")
    group.add_argument(
        "--metrics",
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
        "--subset", choices=SUBSETS, help="part of the keys (default: eval if they name subsets, else all)"
    )
    group.add_argument("--plots", type=Path, metavar="FOLDER", help="write DET curve and histogram (default: none)")
