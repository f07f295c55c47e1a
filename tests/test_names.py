"""The names of checkpoints: as documented, each its own, and the templates that cannot promise that are refused."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.records import STEPS_PER_EPOCH, metrics, record
from tests.records import validated as validated_with
from training.checkpoints.frozen_reference import FrozenReference
from training.checkpoints.record import CheckpointRecord, Kind
from training.runs.directory import RunDirectory
from training.runs.names import CheckpointNames
from training.settings.command_line import read_command
from training.settings.name_template import CHECKPOINT_SUFFIXES, COUNTERS, TEXTS, reserved_names
from training.settings.options import Options, options_from_record
from training.settings.tasks import DETECTION
from utils.atomic_files import atomic_write
from utils.errors import EXIT_USAGE, UserError


def epoch(number: int, val_eer: float = 5.0, val_loss: float = 0.5) -> CheckpointRecord:
    return record("unnamed", number, last=metrics(number, val_eer, val_loss))


def step(number: int, val_loss: float | None = None) -> CheckpointRecord:
    """Return the record of a step checkpoint, validated if there is a loss."""
    completed = (number - 1) // STEPS_PER_EPOCH
    validated = validated_with(number, completed, 5.25, val_loss) if val_loss is not None else None
    return record("unnamed", completed, batches_done=number - completed * STEPS_PER_EPOCH, validated=validated)


FIELDS = (*COUNTERS, *(figure.name for figure in DETECTION.figures.of_validation), *TEXTS)


def name(template: str | None, made: CheckpointRecord, **settings: object) -> str:
    options = Options(checkpoint_name=template, **settings)  # type: ignore[arg-type]
    return CheckpointNames.of(options).file_name(made)


@pytest.mark.parametrize("comment", [None, "exp1"])
def test_the_default_names_are_those_of_the_run_folder(comment: str | None) -> None:
    run = RunDirectory(Path("models/run"), comment)
    assert name(None, epoch(3), comment=comment) == run.epoch_checkpoint(3).name
    assert name(None, step(24), comment=comment) == run.epoch_checkpoint(24).name.replace("epoch", "step")


LOSSES = "step_{step:08d}-val_loss_{val_loss:.4f}.ckpt"
EVERY_2000: dict[str, object] = {"save_interval": 2000, "val_interval": 1000}
# (the template, the settings beside it, the checkpoint, its name, why)
NAMED: list[tuple[str, dict[str, object], CheckpointRecord, str, str]] = [
    ("checkpoint_{kstep}k.pt", {}, step(5000), "checkpoint_5k.pt", "as documented"),
    (LOSSES, EVERY_2000, step(10000, 0.1234), "step_00010000-val_loss_0.1234.ckpt", "as documented"),
    ("checkpoint_{kstep}k.pt", {}, step(5001), "checkpoint_step_5001.pth", "stopped in between"),
    ("checkpoint_{kstep}k.pt", {"comment": "x"}, step(5001), "checkpoint_step_5001_x.pth", "stopped in between"),
    ("checkpoint_{kstep}k.pt", {}, epoch(3), "checkpoint_epoch_3.pth", "an epoch, and the template is for steps"),
    (LOSSES, EVERY_2000, step(10000), "checkpoint_step_10000.pth", "stopped before it was validated"),
    (LOSSES, EVERY_2000, step(9000, 0.5), "checkpoint_step_9000.pth", "validated, and stopped in between"),
    ("ep{epoch}_eer{val_eer:.2f}", {}, epoch(3, 1.256), "ep3_eer1.26.pth", "no suffix: .pth"),
    ("ep{epoch}_eer{val_eer:.2f}", {}, step(24), "checkpoint_step_24.pth", "a step, and the template is for epochs"),
    ("ep{epoch}", {"save_interval": 0}, epoch(3), "ep3.pth", "epochs are saved whatever --save_interval says"),
    ("checkpoint_epoch_{epoch:03d}.pth", {}, epoch(3), "checkpoint_epoch_003.pth", "as the help shows"),
    ("checkpoint_step_{step:06}.pth", {}, step(5000), "checkpoint_step_005000.pth", "as the default, padded"),
    ("{comment}_{model_type}_{seed}_{epoch}", {"comment": "x", "seed": 7}, epoch(2), "x_g3_heatmap_7_2.pth", "texts"),
    ("{comment}{step}", {}, step(5000), "5000.pth", "no comment"),
    ("{comment}-{epoch}", {"comment": "{epoch} a.b"}, epoch(2), "{epoch} a.b-2.pth", "a comment is no template"),
    ("v1.5_{epoch}", {}, epoch(2), "v1.5_2.pth", "a dot before the field begins no suffix"),
    ("{{{epoch}}}.pt", {}, epoch(2), "{2}.pt", "doubled braces are braces"),
    ("e{epoch}s{step}a{val_acc:g}", EVERY_2000, step(10000, 0.5), "e999s10000a90.pth", "completed epochs"),
    ("{kstep}k-{step}", {"save_interval": 500}, step(1500), "1k-1500.pth", "kstep may repeat beside step"),
]


@pytest.mark.parametrize(("template", "settings", "made", "expected", "why"), NAMED)
def test_a_checkpoint_is_named_by_the_template(
    template: str, settings: dict[str, object], made: CheckpointRecord, expected: str, why: str
) -> None:
    assert name(template, made, **settings) == expected, why


# (the template, the settings beside it, the words of the refusal)
REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("{stp}.pth", {}, "has the unknown field {stp}: did you mean {step}?"),
    ("{valloss}_{step}", {}, "did you mean {val_loss}?"),
    ("{xyzzy}{step}", {}, f"has the unknown field {{xyzzy}}: the fields are {', '.join(FIELDS)}"),
    ("{}_{step}", {}, "has the unknown field {}"),
    ("{0}_{step}", {}, "has the unknown field {0}"),
    ("{step.real}", {}, "has the unknown field {step.real}: did you mean {step}?"),
    ("{step[0]}", {}, "has the unknown field {step[0]}: did you mean {step}?"),
    ("{step!r}", {}, "has {step!r}: leave !r out, write {step}"),
    ("{step", {}, "cannot be read (expected '}' before end of string)"),
    ("step}", {}, "cannot be read (Single '}' encountered in format string)"),
    ("{step:08q}", {}, "has the bad format {step:08q}: write {step} or {step:08d}"),
    ("{step:0<8}", {}, "has the bad format {step:0<8}"),  # 5 and 50 would both be 50000000
    ("{step:.1e}", {}, "has the bad format {step:.1e}"),
    ("{step:999999999d}", {}, "has the bad format"),
    ("{step:{epoch}}", {}, "has the bad format {step:{epoch}}"),
    ("{epoch}_{val_loss:d}", {}, "has the bad format {val_loss:d}: write {val_loss} or {val_loss:.4f}"),
    ("{epoch}_{comment:5}", {"comment": "x"}, "has the bad format {comment:5}: write {comment}"),
    ("model.pth", {}, "gives every checkpoint the same name: add {step}, {kstep} or {epoch}"),
    ("{val_loss:.4f}_{seed}.pth", {}, "gives every checkpoint the same name"),
    ("", {}, "gives every checkpoint the same name"),
    ("checkpoint_{kstep}k.pt", {"save_interval": 500}, "pass --save_interval 1000 or another multiple of 1000"),
    ("checkpoint_{kstep}k.pt", {"save_interval": 1500}, "with --save_interval 1500 names would collide"),
    ("checkpoint_{kstep}k.pt", {"save_interval": 1500}, "pass --save_interval 2000 or another multiple of 1000"),
    ("{step}", {"save_interval": 0}, "--save_interval 0 saves none: pass --save_interval 1000, say"),
    (LOSSES, {}, "has {val_loss}, and --val_interval 0 does not validate at every step that --save_interval 1000"),
    (LOSSES, {"val_interval": 300}, "pass --val_interval 1000"),
    (LOSSES, {"val_interval": 2000}, "and --val_interval 2000 does not validate"),
    ("a/{step}", {}, "no slash, backslash or line break"),
    ("a\\{step}", {}, "no slash, backslash or line break"),
    ("a\n{step}", {}, "no slash, backslash or line break"),
    ("a\0{step}", {}, "no slash, backslash or line break"),
    ("\udc80{step}", {}, "no slash, backslash or line break"),
    (".{step}", {}, "begins with a dot"),
    ("..{step}", {}, "begins with a dot"),
    ("{comment}{step}", {"comment": ".tmp-"}, "begins with a dot"),
    ("{step}.safetensors", {}, "ends in .safetensors: end it in .pth, .pt or .ckpt"),
    ("{step}.PTH", {}, "ends in .PTH: end it in"),
    ("{step}.", {}, "ends in .: end it in"),
    ("best_checkpoint_eer_{step}.pth", {}, "begins with best_checkpoint_eer, as other files of the run do"),
    ("Best_Model_EER{epoch}", {}, "begins with best_model_eer"),
    ("last_checkpoint{epoch}", {}, "begins with last_checkpoint"),
    ("frozen_{epoch}", {}, "begins with frozen_"),
    ("{comment}_{epoch}", {"comment": "last_checkpoint"}, "begins with last_checkpoint"),
    ("checkpoint_epoch_{step}.pth", {}, "begins with checkpoint_epoch_, as the default names of epoch checkpoints do"),
    ("checkpoint_epoch_{epoch}_{step}.pth", {}, "go on with {epoch} and a word but no {step} or {kstep}"),
    ("checkpoint_epoch_{epoch}0.pth", {}, "begins with checkpoint_epoch_"),
    ("checkpoint_epoch_x{epoch}.pth", {}, "begins with checkpoint_epoch_"),
    ("checkpoint_step_{kstep}.pth", {}, "begins with checkpoint_step_"),  # 5k would have the name of step 5
    ("checkpoint_step_{step}0.pth", {}, "go on with {step} and a word, or begin it with another word"),
    ("checkpoint_step_{epoch}.pth", {}, "begins with checkpoint_step_"),
    ("{epoch}{val_eer:.0f}", {}, "has nothing between the numbers {epoch} and {val_eer}: put a - or _ there"),
    ("{epoch}{comment}{step}", {}, "has nothing between the numbers {epoch} and {step}"),
    ("{epoch}00{step}", {}, "has nothing between the numbers {epoch} and {step}"),
    ("x" * 230 + "{step}", {}, "at most 230 are possible, shorten it"),
    ("é" * 115 + "{step}", {}, "at most 230 are possible, shorten it"),
    ("{comment}" * 3 + "{step}", {"comment": "x" * 100}, "at most 230 are possible, shorten it"),
]


@pytest.mark.parametrize(("template", "settings", "words"), REFUSED)
def test_a_template_that_cannot_work_is_refused_at_the_start(
    template: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        Options(checkpoint_name=template, **settings)  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"--checkpoint_name {template!r} ")
    assert words in str(refused.value)
    assert refused.value.exit_code == EXIT_USAGE


def test_the_command_line_refuses_it_too() -> None:
    with pytest.raises(UserError, match="names would collide"):
        read_command(["--checkpoint_name", "checkpoint_{kstep}k.pt", "--save_interval", "500"])


def test_the_template_comes_back_from_a_checkpoint() -> None:
    options = Options(checkpoint_name=LOSSES, save_interval=2000, val_interval=1000)
    assert options_from_record(options.as_dict()) == options


def test_every_name_that_the_program_gives_to_other_files_is_reserved() -> None:
    run = RunDirectory(Path("models/run"))
    own = (
        run.best_checkpoint.name,
        run.best_weights.name,
        run.last_checkpoint.name,
        FrozenReference.of("ab" * 32, 4).file,
    )
    assert [name for name in own if not name.startswith(reserved_names(run.task))] == []


@pytest.mark.parametrize("suffix", CHECKPOINT_SUFFIXES)
def test_each_suffix_is_left_as_it_is(suffix: str) -> None:
    assert name(f"{{epoch}}{suffix}", epoch(3)) == f"3{suffix}"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    """atomic_write puts the process number and more before and behind it, and 255 bytes are all there is."""
    widest = Options(checkpoint_name="x" * 216 + "{step}.pth")
    made = CheckpointNames.of(widest).file_name(replace(step(10), step=9_999_999_000))
    assert len(made) == 230
    with atomic_write(tmp_path / made) as file:
        file.write(b"whole")


@pytest.mark.parametrize("template", [row[0] for row in NAMED])
def test_no_two_checkpoints_of_a_run_have_one_name(template: str) -> None:
    """Regular saves, stops in between and epochs, with whatever figures."""
    names = CheckpointNames.of(Options(checkpoint_name=template, save_interval=1000, val_interval=500))
    chance, made = random.Random(20260302), []
    for number in range(1, 3000):
        made.append(epoch(number, chance.choice([0.0, 5.0, 15.0]), chance.choice([0.1, 1.1])))
        at = number if number % 3 else number * 1000
        made.append(step(at, chance.choice([0.1, 1.1, None])))
    found = {(checkpoint.kind, checkpoint.step): names.file_name(checkpoint) for checkpoint in made}
    assert len(set(found.values())) == len(found)


def test_weights_alone_have_no_name_here() -> None:
    with pytest.raises(AssertionError, match="best_weights"):
        name(None, replace(epoch(3), kind=Kind.WEIGHTS))
