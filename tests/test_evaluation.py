"""--eval scores a set with a trained detector, goes on after a stop or a kill to the same bytes, and prints figures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from main import main
from tests.conftest import SMALL_RUN, command_line
from utils.score_files import read_scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A checkpoint of a small run, and the corpus with its development part as the evaluation set too."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "1"]) == 0
    finally:
        os.chdir(before)
    return next((folder / "models").iterdir()) / "checkpoint_epoch_1.pth"


@pytest.fixture
def protocol(corpus: Path) -> Path:
    return corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt"


def arguments(trained: Path, corpus: Path, protocol: Path, *more: str) -> list[str]:
    typed = ["--eval", "--model_path", str(trained), "--database_path", str(corpus), "--protocols_path", str(protocol)]
    return [*typed, "--eval_output", "scores.txt", *more]


def test_every_trial_is_scored_and_measured(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(trained, corpus, protocol)) == 0
    text = capsys.readouterr().out
    assert "Wrote scores.txt" in text and "\nEER: " in text and "min t-DCF (legacy, 2019): " in text
    assert "Subset: all, 6 bona fide and 6 spoof\n" in text
    names = [line.split()[1] for line in protocol.read_text().splitlines()]
    assert list(read_scores(Path("scores.txt")).utterances) == names
    assert [path.name for path in workplace.iterdir()] == ["scores.txt"]


def test_batch_size_and_workers_change_no_score_by_more_than_rounding(
    trained: Path, corpus: Path, protocol: Path, workplace: Path
) -> None:
    assert main(arguments(trained, corpus, protocol)) == 0
    first = read_scores(Path("scores.txt"))
    assert main(arguments(trained, corpus, protocol, "--batch_size", "5", "--num_workers", "1")) == 0
    assert read_scores(Path("scores.txt")).scores == pytest.approx(first.scores, abs=1e-4)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_or_killed_scoring_goes_on_to_the_same_bytes(
    number: signal.Signals, code: int, trained: Path, corpus: Path, protocol: Path, workplace: Path
) -> None:
    typed = arguments(trained, corpus, protocol, "--batch_size", "1")
    assert main(typed) == 0
    undisturbed = Path("scores.txt").read_bytes()
    Path("scores.txt").unlink()
    partial = Path("scores.txt.partial")
    process = subprocess.Popen(
        command_line(*typed), env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and (not partial.exists() or partial.read_text().count("\n") < 3):
        time.sleep(0.002)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code and not Path("scores.txt").exists()
    if code > 0:
        assert "of 12 trials; the same command goes on from there." in said
    goes_on = subprocess.run(
        command_line(*typed), env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert "Going on after " in goes_on.stdout
    assert Path("scores.txt").read_bytes() == undisturbed and not partial.exists()


def test_a_half_written_line_is_scored_again_and_other_data_start_again(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.evaluation.partial_scores import PartialScores  # noqa: PLC0415

    partial = PartialScores(Path("p"), "f" * 64, ["a", "b", "c", "d"])
    partial.begin(["1.5", "2.5"])
    partial.append(2, ["3.5"])
    assert partial.read(1) == (["1.5", "2.5", "3.5"], False)
    assert partial.read(2) == (["1.5", "2.5"], False)
    with Path("p").open("a") as file:
        file.write("d\t4.")
    assert partial.read(1) == (["1.5", "2.5", "3.5"], False)
    assert PartialScores(Path("p"), "0" * 64, partial.names).read(1) == ([], True)
    Path("p").rename("scores.txt.partial")
    assert main(arguments(trained, corpus, protocol)) == 0
    assert "scoring starts again" in capsys.readouterr().out


def test_json_is_one_document_and_trials_without_keys_give_scores_only(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(trained, corpus, protocol, "--json")) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["eer_percent"] <= 100
    names = [line.split()[1] for line in protocol.read_text().splitlines()]
    Path("trials.txt").write_text("\n".join(names) + "\n")
    assert main(arguments(trained, corpus, Path("trials.txt"))) == 0
    assert "The trials have no keys, so there are no figures: --metrics scores.txt" in capsys.readouterr().out


def test_scores_of_bare_weights_with_other_flags_are_not_continued(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bias has no weights, so the file fits both detectors: half the scores came from each."""
    import torch  # noqa: PLC0415

    from training.command_line import read_command  # noqa: PLC0415
    from training.evaluation.evaluation import _open_part  # noqa: PLC0415
    from training.evaluation.partial_scores import PartialScores  # noqa: PLC0415
    from training.evaluation.scoring import fingerprint  # noqa: PLC0415
    from training.evaluation.subject import load_subject  # noqa: PLC0415

    torch.save(torch.load(trained, weights_only=True)["model_state_dict"], "bare.pt")
    typed = arguments(Path("bare.pt"), corpus, protocol, *SMALL_RUN)
    subject = load_subject(read_command(typed))
    part = _open_part(subject.options, None)
    names = [trial.utterance for trial in part.protocol.trials]
    PartialScores(Path("scores.txt.partial"), fingerprint(subject, part), names).begin(["99"] * 4)
    assert main([*typed, "--temporal_bias", "none"]) == 0
    assert "of other settings: scoring starts again" in capsys.readouterr().out
    assert max(read_scores(Path("scores.txt")).scores) < 99


def test_a_detector_trained_on_balanced_batches_is_evaluated_one_by_one(
    corpus: Path, protocol: Path, workplace: Path
) -> None:
    assert main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "1", "--balanced_batches"]) == 0
    checkpoint = next((workplace / "models").iterdir()) / "checkpoint_epoch_1.pth"
    assert main(arguments(checkpoint, corpus, protocol, "--batch_size", "1")) == 0


def test_heatmaps_leave_json_one_document(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = arguments(trained, corpus, protocol, "--json", "--visualize_attention", "--viz_samples", "2")
    assert main(typed) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["bona_fide"] == 6
    assert "Attention heatmaps: " in said.err and list(Path("scores_attention").glob("*.png"))


def test_checkpoints_that_differ_after_a_point_get_score_files_of_their_own(
    trained: Path, corpus: Path, protocol: Path, workplace: Path
) -> None:
    for name in ("val_eer_12.50.pt", "val_eer_12.75.pt"):
        shutil.copy(trained, name)
        typed = arguments(Path(name), corpus, protocol)
        assert main([word for word in typed if word not in ("--eval_output", "scores.txt")]) == 0
    assert len(list(workplace.glob("val_eer_12*_scores_*.txt"))) == 2


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--group_size", "5"], 1, "--group_size 5 contradicts"),
        (["--keys", "k.txt"], 2, "--keys goes with --metrics"),
        (["--subset", "progress"], 1, "--subset progress: "),
        (["--eval_output", "x.pth"], 2, "is no name for a score file"),
        (["--eval_output", "note.txt"], 1, "exists and is no score file"),
        (["--model_path", "nothing.pth"], 1, "--model_path nothing.pth does not exist"),
        (["--asv_scores", "typo.txt"], 1, "check --asv_scores"),
        (["--resume"], 2, "contradict each other"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_a_sentence(
    more: list[str],
    code: int,
    words: str,
    trained: Path,
    corpus: Path,
    protocol: Path,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("note.txt").write_text("this is my note\n")
    assert main(arguments(trained, corpus, protocol, *more)) == code
    assert words in capsys.readouterr().err
    assert Path("note.txt").read_text() == "this is my note\n"
    assert not Path("scores.txt").exists()


def test_a_run_without_a_checkpoint_is_named_as_what_the_flags_say(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--eval", "--comment", "nothing"]) == 1
    said = capsys.readouterr().err
    assert "--eval: there is no checkpoint in models/g3_heatmap" in said
    assert "_nothing, the run that these flags name" in said


def test_weights_alone_are_scored_with_the_settings_of_the_flags(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch  # noqa: PLC0415

    torch.save(torch.load(trained, weights_only=True)["model_state_dict"], "bare.pt")
    assert main(arguments(trained, corpus, protocol)) == 0
    first = Path("scores.txt").read_bytes()
    assert main([*arguments(Path("bare.pt"), corpus, protocol, *SMALL_RUN)]) == 0
    assert Path("scores.txt").read_bytes() == first
    shutil.rmtree(workplace / "models", ignore_errors=True)
