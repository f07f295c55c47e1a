"""Two settings that give different results are never one run: folder names, and which folder is whose."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from main import main
from tests.asking import asked_training
from tests.conftest import SMALL_RUN, write_corpus
from tests.records import record, write_checkpoint
from training.planning.announcements import plan_text
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.planning.plan import Plan, Start
from training.runs.directory import RUNS_ROOT
from training.settings.identity import former_name, run_name, tells_runs_apart
from training.settings.options import SETTINGS, Options, setting_type
from training.settings.setting import OnChange
from utils.errors import UserError

DOCUMENTED = "g3_heatmap_DF_CCE_100_16_1e-06_group3_contrastiveFalse"
LA: dict[str, Any] = {"database_path": "/data/LA"}
NAMES: list[tuple[str, dict[str, Any], str]] = [
    ("nothing typed", {}, DOCUMENTED),
    ("a comment", {"comment": "exp1"}, f"{DOCUMENTED}_exp1"),
    ("a seed", {"seed": 2}, f"{DOCUMENTED}_seed2"),
    ("a seed and a comment", {"seed": 2, "comment": "x_y"}, f"{DOCUMENTED}_seed2_x_y"),
    ("the default, typed", {"seed": 1234, "precision": "fp32"}, DOCUMENTED),
    ("in the order of --help", {"seed": 2, "algo": 5, "crop": "random"}, f"{DOCUMENTED}_croprandom_algo5_seed2"),
    ("numbers as str writes them", {"weight_decay": 1e-5, "minF": 30}, f"{DOCUMENTED}_minF30.0_weight_decay1e-05"),
    ("several numbers", {"class_weights": (0.5, 1e-5)}, f"{DOCUMENTED}_class_weights0.5-1e-05"),
    ("a choice", {"scheduler": "cosine", "precision": "bf16"}, f"{DOCUMENTED}_schedulercosine_precisionbf16"),
    ("a text with a slash", {**LA, "ssl_model": "facebook/x_y"}, f"{DOCUMENTED}_ssl_modelfacebook+x%5Fy"),
    ("the front-end of the demo, for other data", {**LA, "ssl_model": "compact"}, f"{DOCUMENTED}_ssl_modelcompact"),
    ("the front-end that it has anyway", {"ssl_model": "compact"}, DOCUMENTED),
    ("weights that the loss has anyway", {"balanced_batches": True}, f"{DOCUMENTED}_balanced_batchesTrue"),
    ("spoofs beside their sources", {"pair_batches": True}, f"{DOCUMENTED}_pair_batchesTrue"),
    ("no setting of results", {"num_workers": 0, "save_interval": 5, "patience": 3, **LA}, DOCUMENTED),
    ("one batch a step, typed or not", {"accumulate_steps": 1}, DOCUMENTED),
    ("more batches a step", {"accumulate_steps": 4}, f"{DOCUMENTED}_accumulate_steps4"),
    ("another detector has its own rate", {"model_type": "lcnn"}, "lcnn_DF_CCE_100_16_0.0003_group3_contrastiveFalse"),
    ("a comment that looks like a setting", {"comment": "seed2"}, f"{DOCUMENTED}_comment-seed2"),
    ("but is that of this run", {"seed": 2, "comment": "seed2"}, f"{DOCUMENTED}_seed2_seed2"),
    ("or a default", {"comment": "seed1234"}, f"{DOCUMENTED}_seed1234"),
    ("a word that begins like a setting", {"comment": "seeds_cropped"}, f"{DOCUMENTED}_seeds_cropped"),
]


@pytest.mark.parametrize(("why", "values", "name"), NAMES, ids=[row[0] for row in NAMES])
def test_a_folder_is_named_by_what_changes_the_results(why: str, values: dict[str, Any], name: str) -> None:
    assert run_name(Options(**values)) == name, why


def test_past_150_bytes_a_hash_stands_for_the_rest() -> None:
    many: dict[str, Any] = {
        "num_examples": 1000,
        "crop": "random",
        "algo": 5,
        "nBands": 7,
        "minF": 30.0,
        "maxF": 7000.0,
        "N_f": 4,
    }
    one = run_name(Options(**many, seed=2, comment="c" * 100))
    two = run_name(Options(**many, seed=3, comment="c" * 100))
    start = f"{DOCUMENTED}_num_examples1000_croprandom_algo5_nBands7_minF30.0_maxF7000.0_N_f4_"
    assert one.startswith(start.removesuffix("_"))
    long = {**many, "ssl_model": "f" * 300}
    shortened = run_name(Options(**long))
    assert one != two
    assert len(shortened) <= 150
    assert len(shortened.rpartition("_")[2]) == 8
    assert shortened != run_name(Options(**long, seed=2))
    assert len(one.encode()) <= 251, "the comment has its own hundred"


def other_value(name: str, draw: random.Random) -> Any:
    declared, kind = SETTINGS[name], setting_type(name)
    if declared.choices:
        return draw.choice(declared.choices)
    if kind is bool:
        return draw.random() < 0.5
    if kind is int:
        return max(1, int(declared.at_least) if declared.at_least > 0 else 0) + draw.randrange(4)
    if kind is float:
        return draw.choice((0.25, 0.5, 1.0))
    return draw.choice(("compact", "a/b", "a_b", "a-b", "a+b", "a%2Fb", "a", "seed2"))


def random_options(draw: random.Random) -> Options | None:
    names = [name for name in SETTINGS if SETTINGS[name].on_change is not OnChange.FREE and name != "class_weights"]
    values = {name: other_value(name, draw) for name in draw.sample(names, draw.randrange(4))}
    comments = (
        None,
        "seed2",
        "comment-seed2",
        "x",
        "algo1_x",
        "seed2_x",
        "swa",
        "a_croprandom",
        "P0.5",
        "precisionbf16",
    )
    try:
        return Options(**values, comment=draw.choice(comments), **LA)
    except UserError:
        return None  # settings that contradict each other


def test_no_two_settings_that_give_different_results_have_one_name() -> None:
    draw = random.Random(1)
    by_name: dict[str, tuple[Any, ...]] = {}
    made = [options for _ in range(6000) if (options := random_options(draw))]
    assert len(made) > 3000
    for options in made:
        key = tuple(getattr(options, name) for name in SETTINGS if tells_runs_apart(name)), options.comment
        name = run_name(options)
        assert "/" not in name
        assert by_name.setdefault(name, (*key, options.num_epochs)) == (*key, options.num_epochs), name


def test_a_setting_that_is_declared_tomorrow_is_in_the_name() -> None:
    """What is not is listed here, so that leaving one out is a decision."""
    left_out = {
        name for name in SETTINGS if SETTINGS[name].on_change is not OnChange.FREE and not tells_runs_apart(name)
    }
    assert left_out == {"num_epochs", "patience"}


# What is asked for, and what is on disk


@dataclass(frozen=True)
class Row:
    """`stored` are the settings of the run on disk, in a folder with the name of an earlier version or of this one."""

    why: str
    typed: str
    stored: dict[str, Any]
    start: Start | None  # None: refused
    folder: str = ""  # where training would write; "": the folder of the run on disk
    earlier: bool = False
    epochs: int = 100
    untrained: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


DONE: dict[str, Any] = {"num_epochs": 3}
THREE = "--auto_resume --num_epochs 3"
NAME_3 = DOCUMENTED.replace("_100_", "_3_")
SEED_2 = f"{NAME_3}_seed2"
TABLE = [
    Row("the same at its target: nothing to do", THREE, DONE, Start.REACHED, epochs=3),
    Row("another seed is another run", f"{THREE} --seed 2", DONE, Start.FRESH, SEED_2, epochs=3),
    Row("another augmentation", f"{THREE} --algo 5", DONE, Start.FRESH, f"{NAME_3}_algo5", epochs=3),
    Row(
        "another schedule",
        f"{THREE} --scheduler cosine",
        DONE,
        Start.FRESH,
        f"{NAME_3}_schedulercosine",
        epochs=3,
        says=(f"models/{NAME_3} differs in --scheduler (constant there)",),
    ),
    Row("other rounding", f"{THREE} --precision bf16", DONE, Start.FRESH, f"{NAME_3}_precisionbf16", epochs=3),
    Row("another crop", f"{THREE} --crop random", DONE, Start.FRESH, f"{NAME_3}_croprandom", epochs=3),
    Row("another patience is the same run", f"{THREE} --patience 9", DONE, Start.REACHED, epochs=3),
    Row("so are other workers", f"{THREE} --num_workers 0", DONE, Start.REACHED, epochs=3),
    Row("a default that is typed", f"{THREE} --seed 1234", DONE, Start.REACHED, epochs=3),
    Row(
        "an earlier version's run, same settings", f"{THREE} --seed 2", {**DONE, "seed": 2}, Start.REACHED, "", True, 3
    ),
    Row(
        "an earlier version's run, half done, goes on in its folder",
        "--auto_resume --seed 2",
        {"seed": 2},
        Start.RESUME,
        earlier=True,
        epochs=5,
    ),
    Row(
        "an earlier version's run gets longer under its new name",
        "--auto_resume --seed 2",
        {**DONE, "seed": 2},
        Start.RESUME,
        f"{DOCUMENTED}_seed2",
        True,
        3,
        says=("has the same settings but for --num_epochs, so it goes on here",),
    ),
    Row(
        "the folder of another seed, at its target: said, and no success",
        THREE,
        {**DONE, "seed": 2},
        Start.REACHED,
        "",
        True,
        3,
        untrained=("seed",),
        says=("--seed 2 is that of models/",),
    ),
    Row(
        "the folder of another seed, half done: its own settings, and said",
        "--auto_resume",
        {"seed": 2},
        Start.RESUME,
        "",
        True,
        5,
        says=("--seed 2 is that of models/", "a new run would have 1234"),
    ),
    Row(
        "the folder of another seed than was typed: refused",
        "--auto_resume --seed 1234",
        {"seed": 2},
        None,
        "",
        True,
        5,
    ),
    Row(
        "begun with the former default rate",
        "--auto_resume --model_type lcnn",
        {"model_type": "lcnn", "lr": 1e-6},
        Start.RESUME,
        earlier=True,
        epochs=5,
        says=("--lr 1e-06 is that of models/", "0.0003, a default that changed"),
    ),
    Row(
        "and at its target: a success, as it was",
        f"{THREE} --model_type lcnn",
        {**DONE, "model_type": "lcnn", "lr": 1e-6},
        Start.REACHED,
        earlier=True,
        epochs=3,
    ),
    Row(
        "that rate typed in this version: another run",
        "--auto_resume --model_type lcnn",
        {"model_type": "lcnn", "lr": 1e-6},
        Start.FRESH,
        "lcnn_DF_CCE_100_16_0.0003_group3_contrastiveFalse",
        epochs=5,
        says=("differs in --lr (1e-06 there)",),
    ),
    Row(
        "rate and length together: named with both",
        "--auto_resume --lr 1e-5 --num_epochs 150",
        {},
        Start.FRESH,
        "g3_heatmap_DF_CCE_150_16_1e-05_group3_contrastiveFalse",
        epochs=5,
        says=(f"models/{DOCUMENTED} differs in --lr (1e-06 there), --num_epochs (100 there)",),
    ),
]


def written(row: Row) -> Path:
    options = Options(**row.stored)
    name = former_name(options) if row.earlier else run_name(options)
    path = RUNS_ROOT / name / f"checkpoint_epoch_{row.epochs}.pth"
    changes: dict[str, Any] = {"format": 2} if row.earlier else {}
    write_checkpoint(path, record(path, row.epochs, options=options, **changes))
    return path.parent


def plan_of(*typed: object) -> Plan:
    command = asked_training(*typed)
    return decide(command, collect_facts(command))


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.why)
def test_a_run_is_found_by_its_settings_first_and_by_its_name_second(row: Row) -> None:
    folder = written(row)
    if row.start is None:
        with pytest.raises(UserError, match=r"holds another one: --seed is 2 there and 1234 now; type its settings"):
            plan_of(*row.typed.split())
        return
    plan = plan_of(*row.typed.split())
    assert (plan.start, plan.run.folder) == (row.start, RUNS_ROOT / row.folder if row.folder else folder)
    assert tuple(change.name for change in plan.untrained) == row.untrained
    text = plan_text(plan)
    for words in row.says:
        assert words in text


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("typed", "stays"), [("", True), ("--num_workers 0", True), ("--seed 3", False)])
def test_resume_stays_in_the_folder_that_an_earlier_version_named_unless_the_run_becomes_another(
    typed: str, stays: bool
) -> None:
    folder = written(Row("", "", {"seed": 2}, Start.RESUME, earlier=True, epochs=5))
    plan = plan_of("--resume", "--model_path", folder / "checkpoint_epoch_5.pth", *typed.split())
    assert plan.run.folder == (folder if stays else RUNS_ROOT / f"{DOCUMENTED}_seed3")
    assert [change.name for change in plan.changes] == ([] if stays else ["seed"])


@pytest.mark.usefixtures("workplace")
def test_the_plan_says_where_a_learning_rate_is_far_from_the_usual_one() -> None:
    assert plan_of("--model_type", "aasist", "--lr", "1e-6").notes == (
        "--lr 1e-06 is 100 times lower than 0.0001, published (arXiv 2110.01200)",
    )
    (compact,) = plan_of("--fresh_start").notes
    assert compact.startswith("--lr 1e-06 is 1000 times lower than 0.001, which layers with random weights took")
    assert plan_of("--database_path", "/data/LA").notes == ()
    assert plan_of("--model_type", "lcnn", "--lr", "1e-3").notes == ()


# Whole runs


def seeds_in_a_loop(corpus: Path, *more: str) -> list[int]:
    small = [*SMALL_RUN, "--database_path", str(corpus), "--num_epochs", "1", *more]
    return [main([*small, "--auto_resume", "--seed", seed]) for seed in ("1", "2", "3")]


@pytest.mark.parametrize("more", [(), ("--experiment", "x")], ids=["models", "experiment"])
def test_three_seeds_in_a_loop_are_three_runs_and_the_loop_again_trains_nothing(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assert seeds_in_a_loop(corpus, *more) == [0, 0, 0]
    root = Path("outputs/x/checkpoints") if more else RUNS_ROOT
    folders = sorted(root.iterdir())
    assert len(folders) == 3
    if not more:
        assert [folder.name.rpartition("_")[2] for folder in folders] == ["seed1", "seed2", "seed3"]
    weights = {(folder / "checkpoint_epoch_1.pth").read_bytes() for folder in folders}
    assert len(weights) == 3
    capsys.readouterr()
    assert seeds_in_a_loop(corpus, *more) == [0, 0, 0]
    said = capsys.readouterr().out
    assert (said.count("Target epochs already reached"), said.count("Epoch 1/1")) == (3, 0)
    assert sorted(root.iterdir()) == folders


def test_other_data_at_the_target_are_said_and_are_no_success(
    corpus: Path, tmp_path: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*SMALL_RUN, "--num_epochs", "1", "--auto_resume", "--database_path"]
    assert main([*small, str(corpus)]) == 0
    other = write_corpus(tmp_path / "other", train=6, dev=4)
    capsys.readouterr()
    assert main([*small, str(other)]) == 1
    said = capsys.readouterr().out
    assert "Not trained: what was asked for." in said
    assert "train protocol is " in said
    assert main([*small, str(corpus)]) == 0
    assert main([*small, str(tmp_path / "gone")]) == 1


def test_a_run_whose_corpus_is_gone_is_still_at_its_target(
    tmp_path: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "mine", train=6, dev=4)
    command = [*SMALL_RUN, "--num_epochs", "1", "--auto_resume", "--database_path", str(corpus)]
    assert main(command) == 0
    corpus.rename(tmp_path / "moved")
    assert main(command) == 0
    assert "[NOTE] Whether the data are still those of the run could not be seen:" in capsys.readouterr().out


def test_resume_with_another_setting_at_the_target_is_no_success(
    corpus: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL_RUN, "--num_epochs", "1", "--database_path", str(corpus)]) == 0
    (folder,) = RUNS_ROOT.iterdir()
    capsys.readouterr()
    assert main(["--resume", "--model_path", str(folder), "--weight_decay", "0.5"]) == 1
    assert "weight_decay is 0.0001 there and 0.5 here" in capsys.readouterr().out
