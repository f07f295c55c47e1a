"""What may be typed, what it means, and the words for what may not: usage errors exit 2 and name the flags."""

from __future__ import annotations

import argparse
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from models.names import MODEL_TYPES
from tests.asking import asked, asked_training
from tests.test_options import DEFAULTS
from training.settings.command_line import read_command
from training.settings.flags import build_parser
from training.settings.nearest_name import USUAL_NAMES
from training.settings.options import Options
from training.settings.requests import (
    EXPORT_FORMATS,
    WHOLE_CHECKPOINT,
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
    Train,
    ValidateCheckpoints,
)
from utils.errors import EXIT_USAGE, UserError

CHECKPOINT_FLAGS = ["--resume", "--fresh_start", "--auto_resume", "--list_checkpoints"]
LOOKS = ["--inspect_checkpoint", "--validate_checkpoints", "--metrics", "--check_data"]
EVALUATION_FLAGS = ("--eval", "--eval_output", "--average_checkpoints", "--score", "--prior")
METRICS_FLAGS = ["--keys", "--asv_scores", "--subset", "--plots"]
OTHER_FLAGS = [
    "--make_spoofs",
    "--vocoders",
    "--export",
    "--export_path",
    "--json",
    "--model_path",
    "--load_checkpoint_type",
    "--accept_changed_audio",
    "--config",
    "--help",
    "--version",
    "--no_save_wandb_metadata",
]


def refusal(*arguments: str) -> str:
    """Return the message that refuses these arguments; it must be a usage error."""
    with pytest.raises(UserError) as refused:
        read_command(arguments)
    assert refused.value.exit_code == EXIT_USAGE
    return str(refused.value)


def config(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def flags_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for group in parser._action_groups for action in group._group_actions]


def test_the_flags_are_these() -> None:
    typed = {action.option_strings[-1 if action.dest == "help" else 0] for action in flags_of(build_parser())}
    assert typed == {
        *CHECKPOINT_FLAGS,
        *LOOKS,
        *METRICS_FLAGS,
        *EVALUATION_FLAGS,
        *OTHER_FLAGS,
        *(f"--{name}" for name in DEFAULTS),
    }


def test_nothing_typed_is_a_fresh_run_with_the_defaults() -> None:
    assert read_command([]) == NewRun(options=Options())


# The table "Valid Combinations" of the documentation, and its meaning.
FILE = Path("a/b.pth")
VALID: list[tuple[str, Train]] = [
    ("", NewRun(options=Options())),
    ("--fresh_start", NewRun(options=Options(), fresh_start=True)),
    ("--resume --model_path a/b.pth", Resume(options=Options(), model_path=FILE)),
    ("--auto_resume", AutoResume(options=Options())),
    ("--auto_resume --model_path a/b.pth", AutoResume(options=Options(), model_path=FILE)),
    ("--auto_resume --accept_changed_audio", AutoResume(options=Options(), accept_changed_audio=True)),
    ("--model_path a/b.pth", NewRun(options=Options(), model_path=FILE)),
    ("--fresh_start --model_path a/b.pth", NewRun(options=Options(), model_path=FILE, fresh_start=True)),
]


@pytest.mark.parametrize(("typed", "meant"), VALID, ids=[row[0] for row in VALID])
def test_a_valid_combination_means_what_is_documented(typed: str, meant: Train) -> None:
    assert read_command(typed.split()) == replace(meant, arguments=tuple(typed.split()))


def test_a_run_is_listed_by_the_flags_that_name_it_or_by_its_folder() -> None:
    assert read_command(["--list_checkpoints", "--comment", "x"]) == ListCheckpoints(place=Options(comment="x"))
    assert read_command(["--list_checkpoints", "--model_path", "a"]) == ListCheckpoints(place=Path("a"))


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(CHECKPOINT_FLAGS, 2)))
def test_two_of_the_four_flags_are_refused_naming_both(first: str, second: str) -> None:
    message = refusal(first, second, "--model_path", "a.pth")
    assert first in message and second in message
    assert "contradict each other: pass one of them" in message


@pytest.mark.parametrize("name", ["--eval", "--is_eval"])
def test_eval_takes_a_model_path_and_flags_of_its_own(name: str) -> None:
    typed = [name, "--model_path", "a.pth", "--eval_output", "s.txt", "--subset", "progress", "--json"]
    assert read_command(typed) == Evaluate(
        options=Options(), model_path=Path("a.pth"), eval_output=Path("s.txt"), subset="progress", as_json=True
    )
    assert "--eval_output goes with --eval" in refusal("--eval_output", "s.txt")


def test_score_takes_files_and_folders_and_a_model_path() -> None:
    own_audio = (Path("a.wav"), Path("b"), Path("c.mp3"))
    typed = ["--score", "a.wav", "b", "--model_path", "m.pth", "--json", "--score", "c.mp3"]
    assert read_command(typed) == Score(options=Options(), own_audio=own_audio, model_path=Path("m.pth"), as_json=True)
    assert asked(Score, "--score", "a.wav", "--average_checkpoints", 3).average_checkpoints == 3
    assert "--score: expected at least one argument" in refusal("--score", "--model_path", "m.pth")


@pytest.mark.parametrize("other", ["--eval", "--resume", "--fresh_start", "--auto_resume", "--list_checkpoints"])
def test_score_is_refused_beside_anything_else_that_is_done(other: str) -> None:
    message = refusal("--score", "a.wav", "--model_path", "m.pth", other)
    assert "--score" in message and other in message and "contradict each other" in message


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--subset", "eval"], "--subset goes with --metrics SCORES"),
        (["--plots", "p"], "--plots goes with --metrics SCORES"),
        (["--eval_output", "s.txt"], "--eval_output goes with --eval"),
        (["--export_path", "s.onnx"], "--export_path goes with --export"),
    ],
)
def test_score_has_no_use_for_what_belongs_to_others(typed: list[str], words: str) -> None:
    assert words in refusal("--score", "a.wav", *typed)


def with_path(flag: str) -> list[str]:
    return [flag, "a.pth"] if flag in LOOKS else [flag]


@pytest.mark.parametrize(
    ("first", "second"),
    [(a, b) for a, b in itertools.permutations([*CHECKPOINT_FLAGS, *LOOKS], 2) if {a, b} & set(LOOKS)],
)
def test_a_flag_that_looks_at_files_is_refused_beside_any_of_the_others(first: str, second: str) -> None:
    message = refusal(*with_path(first), *with_path(second))
    assert first in message and second in message
    assert "contradict each other: pass one of them" in message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--inspect_checkpoint a.pth", InspectCheckpoint(place=Path("a.pth"))),
        (
            "--inspect_checkpoint a --load_checkpoint_type best",
            InspectCheckpoint(place=Path("a"), load_checkpoint_type="best"),
        ),
        ("--validate_checkpoints a.pth", ValidateCheckpoints(place=Path("a.pth"))),
        ("--metrics scores.txt", Metrics(scores=Path("scores.txt"))),
        ("--validate_checkpoints", ValidateCheckpoints(place=Options())),
        ("--validate_checkpoints --comment x", ValidateCheckpoints(place=Options(comment="x"))),
        ("--check_data --num_workers 3", CheckData(corpus=None, protocols=None, num_threads=3)),
        (
            "--check_data LA --database_path ./LA/ --num_workers 0",
            CheckData(corpus=Path("LA"), protocols=None, num_threads=1),
        ),
        ("--check_data LA --num_workers 0", CheckData(corpus=Path("LA"), protocols=None, num_threads=1)),
        (
            "--check_data --database_path LA --protocols_path P --num_workers 3",
            CheckData(corpus=Path("LA"), protocols=Path("P"), num_threads=3),
        ),
    ],
    ids=str,
)
def test_what_is_to_be_looked_at_is_named_behind_the_flag(typed: str, meant: Request) -> None:
    assert read_command(typed.split()) == meant


def test_spoofs_are_made_by_vocoders_of_which_a_model_path_is_one() -> None:
    typed = ["--make_spoofs", "out", "--vocoders", "lpc", "a.pth", "--model_path", "b", "--vocoders", "world"]
    request = asked(MakeSpoofs, *typed, "--load_checkpoint_type", "best", "--database_path", "LA")
    assert (request.folder, request.load_checkpoint_type) == (Path("out"), "best")
    assert request.options.database_path == "LA"
    assert request.named == (
        *(("lpc", "--vocoders"), ("a.pth", "--vocoders"), ("world", "--vocoders")),
        ("b", "--model_path"),
    )


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--make_spoofs", "out"], "--make_spoofs needs vocoders: pass --vocoders NAME..."),
        (["--vocoders", "lpc"], "--vocoders goes with --make_spoofs FOLDER"),
        (["--eval", "--vocoders", "lpc"], "--vocoders goes with --make_spoofs FOLDER"),
        (["--make_spoofs", "out", "--vocoders", "lpc", "--eval"], "--make_spoofs contradict each other"),
        (["--make_spoofs", "out", "--vocoders", "lpc", "--json"], "--json goes with"),
    ],
    ids=str,
)
def test_flags_of_spoofs_go_together(typed: list[str], words: str) -> None:
    assert words in refusal(*typed)


def test_a_corpus_that_is_named_twice_is_refused() -> None:
    message = refusal("--check_data", "a", "--database_path", "b")
    assert message == "--check_data a and --database_path b both name a corpus: pass one of them"


def test_export_takes_a_format_and_names_its_file_by_the_model_path() -> None:
    typed = ["--export", "checkpoint", "--model_path", "a.pth", "--export_path", "b.pth"]
    assert read_command(typed) == Export(model_path=Path("a.pth"), format_name="checkpoint", export_path=Path("b.pth"))
    assert asked(Export, "--export", "onnx", "--model_path", "a.pth").export_path is None
    assert asked(Export, "--export", "onnx", "--model_path", "a.pth", "--database_path", "LA").audio == "LA"


def test_the_formats_that_export_writes_are_these() -> None:
    assert EXPORT_FORMATS == ("checkpoint", "onnx", "torchscript", "safetensors")
    assert EXPORT_FORMATS[0] == WHOLE_CHECKPOINT


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--export", "checkpoint"], "--export needs a checkpoint: pass --model_path FILE"),
        (["--export", "gguf", "--model_path", "a.pth"], "invalid choice: 'gguf'"),
        (["--export", "checkpoint", "--model_path", "a.pth", "--json"], "--json goes with --list_checkpoints"),
        (["--model_path", "a.pth", "--export_path", "b.pth"], "--export_path goes with --export"),
        (["--resume", "--model_path", "a.pth", "--export_path", "b.pth"], "--export_path goes with --export"),
        (["--inspect_checkpoint", "a.pth", "--export_path", "b.pth"], "--export_path goes with --export"),
        *(
            ([flag, "--export", "checkpoint", "--model_path", "a.pth"], f"{flag} and --export contradict each other")
            for flag in CHECKPOINT_FLAGS
        ),
        (
            ["--validate_checkpoints", "a.pth", "--export", "checkpoint", "--model_path", "a.pth"],
            "--validate_checkpoints and --export contradict each other",
        ),
    ],
    ids=str,
)
def test_export_is_refused_without_a_file_and_beside_what_contradicts_it(typed: list[str], words: str) -> None:
    assert words in refusal(*typed)


def test_inspection_needs_a_path() -> None:
    assert "--inspect_checkpoint: expected one argument" in refusal("--inspect_checkpoint")


def test_what_stands_beside_metrics_is_kept() -> None:
    typed = ["--metrics", "s.txt", "--keys", "k.txt", "--asv_scores", "a.txt", "--subset", "hidden", "--plots", "p"]
    assert read_command(typed) == Metrics(
        scores=Path("s.txt"), keys=Path("k.txt"), asv_scores=Path("a.txt"), subset="hidden", plots=Path("p")
    )


@pytest.mark.parametrize("flag", METRICS_FLAGS)
@pytest.mark.parametrize("beside", [[], ["--list_checkpoints"], ["--inspect_checkpoint", "a.pth"]])
def test_what_only_metrics_uses_is_refused_without_it(flag: str, beside: list[str]) -> None:
    assert f"{flag} goes with --metrics SCORES: pass that, too" in refusal(*beside, flag, "eval")


def test_a_subset_that_no_keys_have_is_refused() -> None:
    assert "--subset: invalid choice: 'dev'" in refusal("--metrics", "s.txt", "--subset", "dev")


@pytest.mark.parametrize("flag", LOOKS)
def test_a_model_path_beside_a_flag_that_looks_is_refused_with_the_way_to_write_it(flag: str) -> None:
    message = refusal(*with_path(flag), "--model_path", "b.pth")
    assert f"{flag} does not use --model_path: write the path behind it, {flag} b.pth" in message


@pytest.mark.parametrize("flag", ["--list_checkpoints", *LOOKS])
def test_json_goes_with_each_flag_that_looks(flag: str) -> None:
    assert vars(read_command([*with_path(flag), "--json"]))["as_json"]
    assert not vars(read_command(with_path(flag)))["as_json"]


@pytest.mark.parametrize(
    "typed",
    [[], ["--auto_resume"], ["--fresh_start"], ["--resume", "--model_path", "a.pth"], ["--model_path", "a.pth"]],
)
def test_json_is_refused_with_anything_else(typed: list[str]) -> None:
    message = refusal(*typed, "--json")
    assert (
        "--json goes with --list_checkpoints, --inspect_checkpoint, --validate_checkpoints, --check_data, --eval, "
        "--score or --metrics" in message
    )


@pytest.mark.parametrize("more", [[], ["--num_epochs", "5"], ["--load_checkpoint_type", "best"]])
def test_resume_without_a_model_path_is_refused_with_both_ways_out(more: list[str]) -> None:
    message = refusal("--resume", *more)
    assert "--resume needs a checkpoint: pass --model_path FILE, or use --auto_resume" in message


def test_two_flags_are_told_before_a_missing_model_path() -> None:
    assert "--fresh_start and --resume contradict" in refusal("--resume", "--fresh_start")


def test_typed_values_are_known_from_defaults_even_where_they_are_equal() -> None:
    command = asked_training("--lr", "1e-6", "--comment", "x")
    assert command.given == {"lr", "comment"}
    assert command.options == Options(comment="x")


def test_a_switch_can_be_turned_off_again() -> None:
    command = asked_training("--use_contrastive", "--no-use_contrastive")
    assert (command.options.use_contrastive, command.given) == (False, frozenset({"use_contrastive"}))


@pytest.mark.parametrize("typed", [["--lr", "2e-5"], ["--lr=2e-5"], ["--lr", "0.00002"]])
def test_a_number_is_read_however_it_is_written(typed: list[str]) -> None:
    assert asked_training(*typed).options.lr == 2e-5


@pytest.mark.parametrize("typed", ["10,25,50", "50,25,10", " 10, 25 , 50 ", "10,25,25,50"])
def test_milestones_are_numbers_between_commas(typed: str) -> None:
    assert asked_training("--milestones", typed).options.milestones == (10, 25, 50)


@pytest.mark.parametrize("typed", ["--num_epoch", "--res", "--list", "--auto", "--model", "--learning_rate"])
def test_an_abbreviated_or_unknown_flag_is_refused(typed: str) -> None:
    assert typed in refusal(f"{typed}=1")


# (what was typed, the flag that is asked for, why that one)
MISTYPED = [
    ("--num-epochs 5", "--num_epochs", "dashes for underscores"),
    ("--num-epochs=5", "--num_epochs", "with its value behind ="),
    ("--batchsize 8", "--batch_size", "no underscore"),
    ("--batch-size 8", "--batch_size", "dashes"),
    ("--LR 1", "--lr", "capitals"),
    ("-lr 1e-3", "--lr", "one dash"),
    ("\N{EN DASH}lr 1e-3", "--lr", "the dash of a word processor"),
    ("--no_wandb", "--no-wandb", "a switch turned off"),
    ("--epochs 5", "--num_epochs", "a word of it"),
    ("--epoch 5", "--num_epochs", "a word of it, in the singular"),
    ("--max_epochs 5", "--num_epochs", "another word beside it"),
    ("--train_batch_size 5", "--batch_size", "more words than it has"),
    ("--workers 0", "--num_workers", "a word of it"),
    ("--attention", "--visualize_attention", "a word of a switch, which is known turned off, too"),
    ("--random_seed 1", "--seed", "more words than it has"),
    ("--learning_rate 1", "--lr", "the usual name elsewhere"),
    ("--learning-rate=1", "--lr", "the usual name, with dashes"),
    ("--bs 8", "--batch_size", "the usual name elsewhere"),
    ("--gpu 0", "--device", "the usual name elsewhere"),
    ("--data LA", "--database_path", "the usual name elsewhere"),
    ("--dataset LA", "--database_path", "the usual name elsewhere"),
    ("--output runs", "--experiment", "the usual name elsewhere"),
    ("--model aasist", "--model_type", "two flags begin so: the usual meaning"),
    ("--list", "--list_checkpoints", "its beginning"),
    ("--validate a.pth", "--validate_checkpoints", "its beginning"),
    ("--res", "--resume", "its beginning"),
    ("--protocol p.txt", "--protocols_path", "its beginning"),
    ("--num_epcohs 5", "--num_epochs", "letters that changed places"),
    ("--lerning_rate 1", "--lr", "the usual name elsewhere, with a letter left out"),
    ("--weight_decya 0", "--weight_decay", "letters that changed places"),
    ("--score a.wav --eval-output s.txt", "--eval_output", "behind a flag that takes many values"),
    ("--lr 1 --epochs 5 --comment x", "--num_epochs", "among flags that are known"),
]


@pytest.mark.parametrize(("typed", "meant", "why"), MISTYPED, ids=[row[0] for row in MISTYPED])
def test_a_mistyped_flag_is_refused_with_the_nearest_known_one(typed: str, meant: str, why: str) -> None:
    message = refusal(*typed.split())
    assert message.endswith(f" is no flag: did you mean {meant}?"), why
    assert message.split()[0] in typed and "\n" not in message


def test_each_of_several_mistyped_flags_has_its_own_nearest() -> None:
    message = refusal("--epochs", "5", "--bs=8")
    assert message == "--epochs is no flag: did you mean --num_epochs? --bs is no flag: did you mean --batch_size?"


@pytest.mark.parametrize("typed", ["--warp_drive", "--momentum", "--verbose", "--epsilon", "-x"])
def test_where_no_flag_is_near_the_help_is_named(typed: str) -> None:
    assert refusal(typed, "9") == f"{typed} is no flag\n(python main.py --help lists every flag)"


@pytest.mark.parametrize(
    "typed", [["--comment", "epochs"], ["--comment=--epochs"], ["--score", "learning_rate"], ["--lr", "1"]]
)
def test_a_value_is_not_mistaken_for_a_flag(typed: list[str]) -> None:
    read_command(typed)


@pytest.mark.parametrize("typed", [["checkpoint.pth"], ["--save_best_only", "true"], ["--lr", "1", "-5"]])
def test_a_value_that_no_flag_takes_is_told_as_one(typed: list[str]) -> None:
    assert f"unrecognized arguments: {typed[-1]}: a value stands behind its flag" in refusal(*typed)


def test_every_usual_name_leads_to_a_flag_and_is_none() -> None:
    flags = {name.strip("-") for action in flags_of(build_parser()) for name in action.option_strings}
    assert {ours for ours in USUAL_NAMES.values() if ours not in flags} == set()
    assert set(USUAL_NAMES) & flags == set()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--lr", "-1"], "--lr must be above 0, found -1.0"),
        (["--lr"], "argument --lr: expected one argument"),
        (["--num_epochs", "1.5"], "argument --num_epochs: invalid int value: '1.5'"),
        (["--batch_size", "0"], "--batch_size must be at least 1, found 0"),
        (["--track", "PA"], "--track"),
        (["--load_checkpoint_type", "newest"], "--load_checkpoint_type"),
        (["--device", "5"], "--device must be auto, cpu, cuda or cuda:N"),
        (["--comment", "a/b"], "--comment becomes part of file names"),
        (
            ["--milestones", "10,x"],
            "argument --milestones: must be whole numbers between commas, such as 10,25,50, found '10,x'",
        ),
        (
            ["--milestones", "10,"],
            "argument --milestones: must be whole numbers between commas, such as 10,25,50, found '10,'",
        ),
        (
            ["--milestones", ""],
            "argument --milestones: must be whole numbers between commas, such as 10,25,50, found ''",
        ),
        (
            ["--milestones", "1.5"],
            "argument --milestones: must be whole numbers between commas, such as 10,25,50, found '1.5'",
        ),
        (
            ["--milestones", "10 25"],
            "argument --milestones: must be whole numbers between commas, such as 10,25,50, found '10 25'",
        ),
        (
            ["--class_weights", "0.1;0.9"],
            "argument --class_weights: must be numbers between commas, such as 0.1,0.9, found '0.1;0.9'",
        ),
        (["--class_weights", "1"], "--class_weights must be two numbers above 0"),
        (["--milestones", "10,0"], "--milestones must be epochs from 1 on, found 0"),
        (["--keep_last_n", "0"], "--keep_last_n must be at least 1, found 0"),
        (["--checkpoint_name", "{stp}"], "--checkpoint_name '{stp}' has the unknown field {stp}: did you mean {step}?"),
        (["checkpoint.pth"], "unrecognized arguments: checkpoint.pth"),
    ],
)
def test_a_bad_value_is_refused(typed: list[str], words: str) -> None:
    assert words in refusal(*typed)


def test_a_file_gives_settings_and_they_count_as_given(tmp_path: Path) -> None:
    command = asked_training("--config", config(tmp_path, "lr: 0.001\nnum_epochs: 5\ncomment: from file\n"))
    assert command.options == Options(lr=1e-3, num_epochs=5, comment="from file")
    assert command.given == {"lr", "num_epochs", "comment"}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "lr: 0.001\nnum_epochs: 5\n")
    assert asked_training("--num_epochs", 7, "--config", file).options == Options(lr=1e-3, num_epochs=7)


# YAML 1.1 reads 1e-6 as text and 1 as an integer: a person means a number.
@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("lr: 1e-3", "lr", 1e-3),
        ("lr: 1.0e-3", "lr", 1e-3),
        ("lr: 1", "lr", 1.0),
        ("comment: '2'", "comment", "2"),
        ("comment: null", "comment", None),
        ("num_examples: null", "num_examples", None),
        ("use_contrastive: true", "use_contrastive", True),
        ("track: In-the-Wild", "track", "In-the-Wild"),
        ("milestones: [50, 10, 25]", "milestones", (10, 25, 50)),
        ("milestones: []", "milestones", ()),
        ("milestones:\n- 10\n- 25", "milestones", (10, 25)),
        ("class_weights: [1, 9]", "class_weights", (1.0, 9.0)),
        ("keep_last_n: null", "keep_last_n", None),
    ],
)
def test_a_value_in_the_file_has_the_type_of_its_setting(tmp_path: Path, line: str, name: str, value: Any) -> None:
    found = getattr(asked_training("--config", config(tmp_path, line)).options, name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_epoch: 5", "unknown setting `num_epoch`: did you mean `num_epochs`?"),
        ("epochs: 5", "unknown setting `epochs`: did you mean `num_epochs`?"),
        ("learning-rate: 5", "unknown setting `learning-rate`: did you mean `lr`?"),
        ("warp_drive: 5", "unknown setting `warp_drive`"),
        ("resume: true", "unknown setting `resume`"),
        ("1: 5", "unknown setting `1`"),
        ("num_epochs: five", "num_epochs must be a whole number, found 'five'"),
        ("num_epochs: 5.0", "num_epochs must be a whole number, found 5.0"),
        ("num_epochs: true", "num_epochs must be a whole number, found True"),
        ("num_epochs: null", "num_epochs must be a whole number, found None"),
        ("lr: fast", "lr must be a number, found 'fast'"),
        ("lr: true", "lr must be a number, found True"),
        ("use_contrastive: 1", "use_contrastive must be true or false, found 1"),
        ("comment: [a, b]", "comment must be text, found ['a', 'b']"),
        ("class_weights: [a, b]", "class_weights must be numbers, as [0.1, 0.9], found ['a', 'b']"),
        ("class_weights: [1, true]", "class_weights must be numbers, as [0.1, 0.9], found [1, True]"),
        ("milestones: 10", "milestones must be whole numbers, as [10, 25, 50], found 10"),
        ("milestones: '10,25'", "milestones must be whole numbers, as [10, 25, 50], found '10,25'"),
        ("milestones: [10, x]", "milestones must be whole numbers, as [10, 25, 50], found [10, 'x']"),
        ("milestones: [10, true]", "milestones must be whole numbers, as [10, 25, 50], found [10, True]"),
        ("milestones: [1.5]", "milestones must be whole numbers, as [10, 25, 50], found [1.5]"),
        ("milestones: null", "milestones must be whole numbers, as [10, 25, 50], found None"),
        ("milestones: [0]", "--milestones must be epochs from 1 on, found 0"),
        ("lr: -1", "--lr must be above 0"),
        ("track: PA", "--track must be one of"),
        ("", "must hold `name: value` lines, found NoneType"),
        ("- lr", "must hold `name: value` lines, found list"),
        ("lr: [1", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_as_strictly_as_a_bad_flag(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal("--config", config(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert f"--config {path} is not valid YAML" in refusal("--config", str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "--config nowhere.yaml cannot be read: No such file" in refusal("--config", "nowhere.yaml")


def test_every_setting_has_a_help_that_ends_with_its_default() -> None:
    told = {action.dest: action.help or "" for action in flags_of(build_parser())}
    assert [
        name for name in [*DEFAULTS, "model_path", "load_checkpoint_type", "config"] if "default" not in told[name]
    ] == []
    names = ("weight_decay", "num_epochs", "track", "seed")
    shown = {name: re.search(r"\(default: (.*)\)$", told[name]) for name in names}
    assert {name: found and found.group(1) for name, found in shown.items()} == {
        "weight_decay": "0.0001",
        "num_epochs": "100",
        "track": "DF",
        "seed": "1234",
    }


@pytest.mark.parametrize("columns", [80, 120, 300])
def test_the_help_fits_the_terminal_and_stays_readable_on_a_wide_one(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = build_parser().format_help()
    assert max(map(len, text.splitlines())) <= min(columns, 120)
    assert text.startswith("usage: python main.py [flags]\n")


def test_the_help_names_every_detector() -> None:
    told = {action.dest: action.help or "" for action in flags_of(build_parser())}["model_type"]
    assert set(MODEL_TYPES) <= set(re.findall(r"\w+", told))


def test_the_examples_of_the_help_are_commands_that_parse() -> None:
    examples = re.findall(r"^  (?:nohup )?python main\.py (.*?)(?: &)?$", build_parser().format_help(), re.MULTILINE)
    assert len(examples) >= 6
    for example in examples:
        read_command(example.split())


# The shortest command line of each verb.
SHORTEST: list[tuple[str, type[Request]]] = [
    ("", NewRun),
    ("--resume --model_path a.pth", Resume),
    ("--auto_resume", AutoResume),
    ("--list_checkpoints", ListCheckpoints),
    ("--inspect_checkpoint a.pth", InspectCheckpoint),
    ("--validate_checkpoints", ValidateCheckpoints),
    ("--export onnx --model_path a.pth", Export),
    ("--check_data", CheckData),
    ("--make_spoofs o --vocoders lpc", MakeSpoofs),
    ("--metrics s.txt", Metrics),
    ("--eval", Evaluate),
    ("--score a.wav", Score),
]


BESIDE = ["--model_path m", "--load_checkpoint_type best", "--json", "--export_path e", "--keys k", "--asv_scores a"]
BESIDE += ["--subset all", "--plots p", "--eval_output o", "--average_checkpoints 2"]


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize(("typed", "kind"), SHORTEST, ids=[row[0] for row in SHORTEST])
def test_a_flag_beside_any_verb_is_taken_or_refused_by_its_name(typed: str, kind: type[Request], beside: str) -> None:
    try:
        assert isinstance(read_command([*typed.split(), *beside.split()]), kind)
    except UserError as refused:
        assert beside.split(maxsplit=1)[0] in str(refused)


def test_there_is_a_shortest_command_line_of_every_verb() -> None:
    assert {kind for _, kind in SHORTEST} == set(get_args(Request))


@pytest.mark.parametrize(("typed", "kind"), SHORTEST, ids=[row[0] for row in SHORTEST])
def test_a_field_of_a_request_may_be_none_only_where_its_verb_can_do_without(typed: str, kind: type[Request]) -> None:
    """What a verb needs is in its shortest command line; what that leaves out is None, and nothing else ever is."""
    request = read_command(typed.split())
    may_be_none = {name for name, hint in get_type_hints(kind).items() if type(None) in get_args(hint)}
    assert {name for name, value in vars(request).items() if value is None} == may_be_none
