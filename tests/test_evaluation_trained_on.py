"""--eval and what the detector was trained on: it is left out where it can be, and told where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from main import main
from tests.conftest import SMALL_RUN, write_corpus
from training.checkpoints.history import Session
from training.planning.sessions import names_trained_on
from training.runs.trained_names import FILE_NAME, TrainedNames, read_trained_names, write_trained_names
from utils.corpora import find_corpus, find_evaluation_part

SCORES = "checkpoint_epoch_1_scores_CSV"


def write_own_corpus(database: Path) -> Path:
    """Write 20 utterances and one table, which names no parts."""
    protocols = write_corpus(database / "published") / "ASVspoof2019_LA_cm_protocols"
    rows = []
    for line in "".join(path.read_text() for path in sorted(protocols.iterdir())).splitlines():
        _, name, *_, label = line.split()
        rows.append(f"{name}.flac,{label}\n")
    for path in (database / "published").glob("*/flac/*.flac"):
        path.rename(database / path.name)
    shutil.rmtree(database / "published")
    (database / "all.csv").write_text("path,label\n" + "".join(rows))
    return database


def rows_of(database: Path) -> list[str]:
    return (database / "all.csv").read_text().splitlines()[1:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in `own`, and in `models` a run that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    write_own_corpus(folder / "own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["--database_path", "own", *SMALL_RUN, "--num_epochs", "1"]) == 0
    return folder


@pytest.fixture
def run_folder(trained: Path, workplace: Path) -> Path:
    """A copy of that, to work in."""
    shutil.copytree(trained, workplace, dirs_exist_ok=True)
    (folder,) = Path("models").iterdir()
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], run_folder: Path, *more: str) -> list[str]:
    capsys.readouterr()
    assert main(["--eval", "--model_path", str(run_folder), *more]) == 0
    return capsys.readouterr().out.splitlines()


def scored_in(run_folder: Path) -> list[str]:
    return sorted(path.name for path in run_folder.glob("*_scores_*.txt"))


def test_a_corpus_without_an_evaluation_part_is_evaluated_on_what_training_did_not_see(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = find_corpus(Path("own"))
    said = evaluated(capsys, run_folder)
    assert said[0] == f"Evaluating on {len(corpus.dev)} trials of the development part of own/all.csv (CSV, subset all)"
    assert said[1].startswith("There is no evaluation part, and the rest is for training. The best epoch")
    assert said[1].endswith("were chosen on these trials, which were not seen in training")
    names = [line.split()[0] for line in (run_folder / f"{SCORES}_dev_all.txt").read_text().splitlines()]
    assert names == [trial.utterance for trial in corpus.dev.protocol.trials]


@pytest.mark.parametrize("typed", [["--database_path", "moved"], ["--protocols_path", "moved/all.csv"]])
def test_it_is_known_by_content_wherever_it_lies_and_however_it_is_named(
    typed: list[str], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("own", "moved")
    said = evaluated(capsys, run_folder, *typed, "--json")
    document = json.loads("\n".join(said))
    assert document["part"] == "dev" and document["trained_on"] == {
        "utterances": 0,
        "of": document["bona_fide"] * 2,
        "before_is_known": True,
    }


def test_of_a_table_with_parts_that_was_trained_on_the_evaluation_part_is_taken_by_its_name_too(tmp_path: Path) -> None:
    database = write_own_corpus(tmp_path / "own")
    parts = ["train"] * 8 + ["dev"] * 8 + ["test"] * 4
    table = database / "all.csv"
    table.write_text(
        "path,label,split\n" + "".join(f"{row},{p}\n" for row, p in zip(rows_of(database), parts, strict=True))
    )
    identity = find_corpus(database, table).identity
    assert len(find_evaluation_part(database, table, trained_on=identity)) == 4
    assert len(find_evaluation_part(database, table)) == 20
    assert len(find_evaluation_part(database, table, trained_on={"train": "f" * 64})) == 20


def test_the_first_line_tells_which_share_of_another_set_was_trained_on_by_name(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {trial.utterance for trial in find_corpus(Path("own")).train.protocol.trials}
    shutil.copytree("own", "other")
    rows = rows_of(Path("own"))[4:]
    Path("other/all.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    count = sum(row.partition(".")[0] in seen for row in rows)
    said = evaluated(capsys, run_folder, "--database_path", "other")
    assert said[0] == (
        f"{count} of 16 utterances ({100 * count / 16:.1f} %) were trained on, by name: "
        "the figures flatter the detector"
    )
    assert said[1] == "Evaluating on 16 trials of other/all.csv (CSV, subset all)"
    document = json.loads("\n".join(evaluated(capsys, run_folder, "--database_path", "other", "--json")))
    assert (document["part"], document["trained_on"]) == (
        "eval",
        {"utterances": count, "of": 16, "before_is_known": True},
    )


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_without_the_file_of_names_it_is_said_that_it_is_not_known_and_nothing_else_changes(
    fault: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = evaluated(capsys, run_folder)
    file = run_folder / FILE_NAME
    file.unlink() if fault == "missing" else file.write_bytes(file.read_bytes()[:-1])
    said = evaluated(capsys, run_folder)
    note = f"Whether any of them was trained on is not known: {run_folder} has no whole {FILE_NAME}"
    assert note in said and note not in before
    assert [line for line in said if line.startswith("EER: ")] == [line for line in before if line.startswith("EER: ")]


def test_no_damaged_file_of_names_is_believed(tmp_path: Path) -> None:
    names = TrainedNames.of(f"LA_T_{number}" for number in range(5))
    write_trained_names(tmp_path, names)
    whole = (tmp_path / FILE_NAME).read_bytes()
    assert read_trained_names(tmp_path) == names
    for at in range(len(whole)):
        (tmp_path / FILE_NAME).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_trained_names(tmp_path) is None
        (tmp_path / FILE_NAME).write_bytes(whole[:at])
        assert read_trained_names(tmp_path) is None


def test_a_run_goes_on_without_the_file_and_writes_it_again(run_folder: Path) -> None:
    whole = (run_folder / FILE_NAME).read_bytes()
    (run_folder / FILE_NAME).unlink()
    typed = ["--database_path", "own", *SMALL_RUN, "--num_epochs", "2", "--resume", "--model_path", str(run_folder)]
    assert main(typed) == 0
    assert [path.read_bytes() for path in Path("models").glob(f"*/{FILE_NAME}")].count(whole) >= 1


def test_what_earlier_sessions_and_the_weights_at_the_start_were_trained_on_counts_too(tmp_path: Path) -> None:
    def session(weights: str = "", **changes: list[object]) -> Session:
        return Session(0.0, 0, weights, None, {}, changes)

    source, now = tmp_path / "checkpoint_epoch_1.pth", TrainedNames.of(["b", "c"])
    assert names_trained_on(now, [session()], None) == now
    assert names_trained_on(now, [session(lr=[1, 2])], source) == now
    assert names_trained_on(now, [session(num_examples=[None, 2]), session()], source) is None
    assert names_trained_on(now, [session("weights.pth")], source) == now.and_others()
    write_trained_names(tmp_path, TrainedNames.of(["a", "b"]))
    joined = names_trained_on(now, [session(num_examples=[None, 2])], source)
    assert joined == TrainedNames.of(["a", "b", "c"])
    write_trained_names(tmp_path, TrainedNames.of(["a"]).and_others())
    assert names_trained_on(now, [session("weights.pth")], source) == TrainedNames.of(["a", "b", "c"]).and_others()


def test_of_weights_of_unknown_origin_it_is_said_that_what_they_were_trained_on_is_not_known(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "The training began with weights (--model_path), and what those were trained on before is not known: "
    assert not any(line.startswith(note) for line in evaluated(capsys, run_folder))
    names = read_trained_names(run_folder)
    assert names is not None and names.are_all
    write_trained_names(run_folder, names.and_others())
    assert any(line.startswith(note) for line in evaluated(capsys, run_folder))
    document = json.loads("\n".join(evaluated(capsys, run_folder, "--json")))
    assert document["trained_on"]["before_is_known"] is False


def test_tables_without_one_for_evaluation_are_evaluated_on_the_development_part(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(Path("own"))
    for name, some in (("train", rows[:12]), ("dev", rows[12:])):
        Path(f"own/{name}.csv").write_text("path,label\n" + "\n".join(some) + "\n")
    part = find_evaluation_part(Path("own"), trained_on=find_corpus(Path("own")).identity)
    assert (part.name, len(part)) == ("dev", 8)
    said = evaluated(capsys, run_folder, "--database_path", "own")
    assert "Evaluating on 8 trials of the development part of own/dev.csv (CSV, subset all)" in said
    assert "There is no evaluation part: this is the development part" in said


def noisy_copy() -> None:
    """Write the same utterances with other sound."""
    for path in Path(shutil.copytree("own", "noisy")).rglob("*.flac"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, sound + 1e-3 * np.sin(np.arange(len(sound))), rate)


def test_sets_of_one_layout_get_score_files_of_their_own_and_that_of_the_training_the_usual_one(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("own", "another_place")
    noisy_copy()
    own = evaluated(capsys, run_folder)
    for name in ("noisy", "another_place", "own", str(Path("own").absolute())):
        evaluated(capsys, run_folder, "--database_path", name)
    Path("some.csv").write_text("path,label\n" + "\n".join(rows_of(Path("own"))[:6]) + "\n")
    evaluated(capsys, run_folder, "--protocols_path", "some.csv")
    found = scored_in(run_folder)
    assert len(found) == 4 and f"{SCORES}_dev_all.txt" in found
    of = {name.split("_all")[1].rpartition("_")[0] for name in found}
    assert of == {"", "_of_noisy", "_of_another_place", "_of_own"}
    assert any(line.startswith("Wrote ") for line in own) and not list(run_folder.glob("*.version_*"))
    again = evaluated(capsys, run_folder, "--database_path", "noisy")
    assert any("nothing is scored again" in line for line in again)


def test_the_corpus_of_the_training_is_known_where_it_was_moved_to(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(capsys, run_folder)
    Path("own").rename("moved")
    evaluated(capsys, run_folder, "--database_path", "moved")
    assert scored_in(run_folder) == [f"{SCORES}_dev_all.txt"]


def test_two_evaluation_parts_beside_one_training_part_have_score_files_of_their_own(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("own", "shorter")
    rows = rows_of(Path("own"))
    for folder, count in (("own", 8), ("shorter", 6)):
        Path(folder, "eval.txt").write_text("path,label\n" + "\n".join(rows[:count]) + "\n")
    for folder in ("own", "shorter", "own"):
        evaluated(capsys, run_folder, "--database_path", folder, "--protocols_path", f"{folder}/eval.txt")
    assert len(scored_in(run_folder)) == 2 and not list(run_folder.glob("*.version_*"))


def test_finished_scores_that_an_earlier_version_gave_the_usual_name_are_found(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy_copy()
    usual = run_folder / f"{SCORES}_dev_all.txt"
    evaluated(capsys, run_folder, "--database_path", "noisy", "--eval_output", str(usual))
    said = evaluated(capsys, run_folder, "--database_path", "noisy")
    assert any(line.startswith(f"{usual} has the scores of this checkpoint") for line in said)
    assert scored_in(run_folder) == [usual.name]


def test_own_scores_are_never_said_to_have_the_wrong_sign(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys against the scores: the detector is wrong about every trial, and the sign of its scores is right."""
    names = [row.partition(".")[0] for row in rows_of(Path("own"))]
    typed = ["--protocols_path", "trials.txt", "--eval_output", "scores.txt"]
    Path("trials.txt").write_text("\n".join(names) + "\n")
    evaluated(capsys, run_folder, *typed)
    scores = {name: float(score) for name, score in map(str.split, Path("scores.txt").read_text().splitlines())}
    lower = sorted(names, key=scores.__getitem__)[:10]
    keys = ["- bonafide" if name in lower else "A01 spoof" for name in names]
    Path("trials.txt").write_text("".join(f"S {name} - {key}\n" for name, key in zip(names, keys, strict=True)))
    said = evaluated(capsys, run_folder, *typed)
    assert "EER: 100.000000 %" in said and not any("flipped" in line for line in said)
    assert main(["--metrics", "scores.txt"]) == 0
    assert "the sign of the scores looks flipped" in capsys.readouterr().out
