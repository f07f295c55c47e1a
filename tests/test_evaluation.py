"""--eval scores a set with a trained detector, goes on after a stop or a kill to the same bytes, and prints figures."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from main import main
from tests.asking import asked
from tests.conftest import REPOSITORY, SMALL_RUN, trained_run
from tests.warm_start import WarmProgram
from training.settings.requests import Evaluate
from utils.scores.score_files import read_scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A checkpoint of a small run, and the corpus with its development part as the evaluation set too."""
    return trained_run(tmp_path_factory.mktemp("trained"), corpus, num_epochs=1) / "checkpoint_epoch_1.pth"


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
    assert sorted(path.name for path in workplace.iterdir()) == ["scores.txt", "scores.txt.origin.json"]


def test_batch_size_and_workers_change_no_score_by_more_than_rounding(
    trained: Path, corpus: Path, protocol: Path, workplace: Path
) -> None:
    assert main(arguments(trained, corpus, protocol)) == 0
    first = read_scores(Path("scores.txt"))
    another = ["--batch_size", "5", "--num_workers", "1", "--eval_output", "another.txt"]
    assert main(arguments(trained, corpus, protocol, *another)) == 0
    assert read_scores(Path("another.txt")).scores == pytest.approx(first.scores, abs=1e-4)


@pytest.mark.parametrize(("typed", "expected"), [([], 3), (["--batch_size", "5"], 5)], ids=["not given", "given"])
def test_a_cpu_scores_in_batches_that_are_good_for_it_unless_a_size_is_given(
    typed: list[str], expected: int, trained: Path, corpus: Path, protocol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.evaluation.subject import load_subject  # noqa: PLC0415

    monkeypatch.setattr("training.evaluation.subject.BATCH_SIZE_ON_A_CPU", 3)
    assert load_subject(asked(Evaluate, *arguments(trained, corpus, protocol, *typed))).options.batch_size == expected


@pytest.mark.parametrize("is_of_these", [True, False], ids=["of these scores", "of other scores"])
def test_what_a_scoring_left_that_was_killed_after_its_last_rename_goes_with_the_same_command(
    is_of_these: bool, trained: Path, corpus: Path, protocol: Path, workplace: Path
) -> None:
    assert main(arguments(trained, corpus, protocol)) == 0
    fingerprint = json.loads(Path("scores.txt.origin.json").read_text())["fingerprint"] if is_of_these else "other=1"
    Path("scores.txt.partial").write_text(f"# scores not complete yet, of {fingerprint}\n")
    Path("scores.txt.lock").write_text("host x, process 1\n")
    for name in ("scores.txt", "scores.txt.partial", "scores.txt.origin.json", "another.txt"):
        Path(f".tmp-{name}-17-0123abcd").write_text("half")
    assert main(arguments(trained, corpus, protocol)) == 0
    left = {".tmp-another.txt-17-0123abcd"} | (set() if is_of_these else {"scores.txt.partial"})
    assert {path.name for path in workplace.iterdir()} == {"scores.txt", "scores.txt.origin.json"} | left


# Sends itself a signal once three scores are in the file.
_SIGNALLED = """
import os
from training.evaluation.partial_scores import PartialScores
append = PartialScores.append
def append_and_signal(partial, first, scores):
    append(partial, first, scores)
    if first == 2:
        os.kill(os.getpid(), {number})
PartialScores.append = append_and_signal
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_or_killed_scoring_goes_on_to_the_same_bytes(
    number: signal.Signals,
    code: int,
    trained: Path,
    corpus: Path,
    protocol: Path,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = arguments(trained, corpus, protocol, "--batch_size", "1")
    assert main(typed) == 0
    undisturbed = Path("scores.txt").read_bytes()
    Path("scores.txt").unlink()
    partial = Path("scores.txt.partial")
    with WarmProgram(workplace, *typed, first=_SIGNALLED.format(number=int(number))) as program:
        ended, said = program.end()
    assert ended == code and partial.exists() and not Path("scores.txt").exists()
    if code > 0:
        assert "of 12 trials; the same command goes on from there." in said
    capsys.readouterr()
    assert main(typed) == 0
    assert "Going on after " in capsys.readouterr().out
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

    from training.evaluation.evaluation_set import _open_part  # noqa: PLC0415
    from training.evaluation.origin import origin_of  # noqa: PLC0415
    from training.evaluation.partial_scores import PartialScores  # noqa: PLC0415
    from training.evaluation.subject import load_subject  # noqa: PLC0415

    torch.save(torch.load(trained, weights_only=True)["model_state_dict"], "bare.pt")
    typed = arguments(Path("bare.pt"), corpus, protocol, *SMALL_RUN)
    subject = load_subject(asked(Evaluate, *typed))
    part = _open_part(subject, "all")
    names = [trial.utterance for trial in part.protocol.trials]
    PartialScores(Path("scores.txt.partial"), origin_of(subject, part).fingerprint, names).begin(["99"] * 4)
    assert main([*typed, "--temporal_bias", "none"]) == 0
    assert "is of another detector: scoring starts again" in capsys.readouterr().out
    assert max(read_scores(Path("scores.txt")).scores) < 99


def test_scores_of_the_same_checkpoint_and_trials_are_measured_and_all_others_kept_under_another_name(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus / "ASVspoof2019_LA_train" / "flac", "audio")
    names = [line.split()[1] for line in protocol.read_text().splitlines()[:4]]
    trials, scores = workplace / "audio" / "trials.txt", Path("scores.txt")
    trials.write_text("\n".join(names) + "\n")
    typed = arguments(trained, workplace / "audio", trials)
    assert main(typed) == 0
    capsys.readouterr()
    first = (scores.read_text().split(), scores.stat().st_ino)
    assert main(typed) == 0
    assert (scores.read_text().split(), scores.stat().st_ino) == first
    capsys.readouterr()

    keys = ["- bonafide", "A01 spoof"] * 2  # they come later, and change no score
    trials.write_text("".join(f"S {name} - {key}\n" for name, key in zip(names, keys, strict=True)))
    assert main([*typed, "--batch_size", "3"]) == 0
    said = capsys.readouterr().out
    assert "scores.txt has the scores of this checkpoint on these trials already, with another batch_size, " in said
    assert "\nEER: " in said
    # 2019 in four columns now, the same scores
    assert "scores.txt has the same scores in the columns that the tools of this corpus read now" in said
    by_name = dict(zip(first[0][::2], first[0][1::2], strict=True))
    lines = [f"{name} {key.split()[0]} {key.split()[1]} {by_name[name]}" for name, key in zip(names, keys, strict=True)]
    assert scores.read_text().splitlines() == lines
    finished = scores.read_bytes()

    os.utime(workplace / "audio" / f"{names[0]}.flac", (1, 1))
    assert main([*typed, "--json"]) == 0
    beside = capsys.readouterr()
    assert json.loads(beside.out)["bona_fide"] == 2 and "holds other scores (of another audio)" in beside.err
    assert not Path("scores.version_1.txt").exists()  # the same bytes came out: nothing to keep

    scores.write_text(scores.read_text().replace("\n", "1\n"))
    edited = scores.read_bytes()
    assert main(typed) == 0
    said = capsys.readouterr().out
    assert "(they were changed since they were written)" in said
    assert "The earlier scores are in scores.version_1.txt" in said
    assert Path("scores.version_1.txt").read_bytes() == edited and scores.read_bytes() == finished


def test_a_second_process_on_the_same_score_file_is_refused_and_a_dead_one_is_not_in_the_way(
    trained: Path, corpus: Path, protocol: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom training.evaluation.scoring_lock import ScoringLock\n"
        "with ScoringLock(Path('scores.txt')): print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        assert main(arguments(trained, corpus, protocol)) == 1
        assert (
            f"another process scores into scores.txt (host {socket.gethostname()}, process {holder.pid}): wait for it"
            in capsys.readouterr().err
        )
        assert [path.name for path in workplace.iterdir()] == ["scores.txt.lock"]
        holder.kill()
    assert main(arguments(trained, corpus, protocol)) == 0
    assert not Path("scores.txt.lock").exists()


def test_a_lock_file_that_its_last_holder_removed_is_made_anew(workplace: Path) -> None:
    """Between opening and locking it, its last holder may have removed the file."""
    from training.evaluation.scoring_lock import ScoringLock  # noqa: PLC0415

    class Late(ScoringLock):
        opened = 0

        def _locked(self) -> io.FileIO:
            file = super()._locked()
            self.opened += 1
            if self.opened == 1:
                self._path.unlink()
            return file

    with Late(Path("scores.txt")) as lock:
        assert lock.opened == 2 and Path("scores.txt.lock").exists()
    assert list(workplace.iterdir()) == []


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
