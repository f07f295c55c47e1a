"""A run stopped anywhere, any number of times, and resumed ends with the same bits as one that never stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from main import main
from tests.comparing import assert_same_training, log_rows
from tests.conftest import SMALL_RUN, write_corpus
from training.loop import trainer
from training.tasks.detection import DetectionTask

EPOCHS, STEPS_PER_EPOCH = 2, 3
EXTRAS = ["--warmup_steps", "4", "--scheduler", "cosine", "--crop", "random", "--algo", "5", "--use_contrastive"]


def train(folder: Path, corpus: Path, *arguments: str, epochs: int = EPOCHS) -> int:
    """Run the program inside `folder` as a user would, and return its exit code."""
    here = Path.cwd()
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    try:
        return main([*SMALL_RUN, *EXTRAS, "--database_path", str(corpus), "--num_epochs", str(epochs), *arguments])
    finally:
        os.chdir(here)


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "models").iterdir()
    return found


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train(folder, corpus) == 0
    return run_folder(folder)


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Send this process a real signal after given training steps or validation batches (counted from the start)."""
    plan: dict[str, list[int]] = {"take_step": [], "validation_step": []}
    seen = {"take_step": 0, "validation_step": 0}

    def watch(place: object, name: str) -> None:
        original = getattr(place, name)

        def watched(*arguments: object) -> object:
            result = original(*arguments)
            seen[name] += 1
            if seen[name] in plan[name]:
                os.kill(os.getpid(), signal.SIGTERM)
            return result

        monkeypatch.setattr(place, name, watched)

    watch(trainer, "take_step")
    watch(DetectionTask, "validation_step")

    def arrange(steps: tuple[int, ...] = (), validation_batches: tuple[int, ...] = ()) -> None:
        plan["take_step"][:] = steps
        plan["validation_step"][:] = validation_batches

    yield arrange


# (why, training steps after which the run is stopped, validation batches after which it is stopped)
STOPS = [
    ("in the first epoch", (1,), ()),
    ("after the last step of an epoch, before its validation", (3,), ()),
    ("in the second epoch", (5,), ()),
    ("in validation: trained, not validated", (), (1,)),
    ("after every single step", (1, 2, 3, 4, 5, 6), ()),
]


@pytest.mark.parametrize(("why", "steps", "validation_batches"), STOPS, ids=[row[0] for row in STOPS])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    why: str,
    steps: tuple[int, ...],
    validation_batches: tuple[int, ...],
    corpus: Path,
    undisturbed: Path,
    tmp_path: Path,
    stop_after: Callable[..., None],
) -> None:
    stop_after(steps, validation_batches)
    codes: list[int] = []
    while not codes or codes[-1] == 143:
        codes.append(train(tmp_path, corpus, "--auto_resume"))
        assert len(codes) <= 1 + len(steps) + len(validation_batches)
    assert codes == [143] * (len(steps) + len(validation_batches)) + [0]
    assert_same_training(run_folder(tmp_path), undisturbed)
    assert log_rows(run_folder(tmp_path)) == log_rows(undisturbed)


def test_the_results_do_not_depend_on_the_number_of_workers(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert train(tmp_path, corpus, "--num_workers", "2") == 0
    assert_same_training(run_folder(tmp_path), undisturbed)


def test_a_run_stopped_with_two_workers_and_resumed_with_none_ends_with_the_same_bits(
    corpus: Path, undisturbed: Path, tmp_path: Path, stop_after: Callable[..., None]
) -> None:
    stop_after((2, 4))
    assert train(tmp_path, corpus, "--auto_resume", "--num_workers", "2") == 143
    assert train(tmp_path, corpus, "--auto_resume", "--num_workers", "2") == 143
    assert train(tmp_path, corpus, "--auto_resume", "--num_workers", "0") == 0
    assert_same_training(run_folder(tmp_path), undisturbed)


def test_resuming_an_older_epoch_repeats_it_bit_for_bit(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert train(tmp_path, corpus) == 0
    folder = run_folder(tmp_path)
    first = Path("models", folder.name, "checkpoint_epoch_1.pth")
    assert train(tmp_path, corpus, "--resume", "--model_path", str(first)) == 0
    assert (folder / "version_1" / "checkpoint_epoch_2.pth").exists()
    assert_same_training(folder, undisturbed)


def test_a_run_extended_by_an_epoch_equals_one_that_was_asked_for_it_at_once(corpus: Path, tmp_path: Path) -> None:
    """With a constant rate; a falling one depends on the number of epochs by its definition."""
    constant = ("--scheduler", "constant")
    assert train(tmp_path / "at-once", corpus, *constant, epochs=2) == 0
    assert train(tmp_path / "extended", corpus, *constant, epochs=1) == 0
    assert train(tmp_path / "extended", corpus, *constant, "--auto_resume", epochs=2) == 0
    at_once, extended = (tmp_path / name / "models" for name in ("at-once", "extended"))
    (folder,) = at_once.iterdir()
    assert log_rows(folder) == log_rows(extended / folder.name)


def test_a_moved_run_resumes_where_it_is_now(
    corpus: Path, undisturbed: Path, tmp_path: Path, stop_after: Callable[..., None]
) -> None:
    stop_after((4,))
    assert train(tmp_path / "here", corpus, "--auto_resume") == 143
    (tmp_path / "here").rename(tmp_path / "there")
    assert train(tmp_path / "there", corpus, "--auto_resume") == 0
    assert_same_training(run_folder(tmp_path / "there"), undisturbed)


@pytest.mark.parametrize(
    ("model_type", "flags"),
    [
        ("sls", ["--ssl_model", "compact"]),
        ("ssl_mean", ["--ssl_model", "compact", "--freeze_ssl"]),
        ("lcnn", []),
    ],
)
def test_a_stopped_and_resumed_run_of_another_detector_ends_with_the_same_bits(
    model_type: str, flags: list[str], tmp_path: Path, stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of --model_type: tests/test_aasist.py, and from state to state tests/test_every_detector.py."""
    corpus = write_corpus(tmp_path / "corpus", train=4, dev=2)
    typed = ["--model_type", model_type, *flags, "--batch_size", "2", "--lr", "1e-3", "--num_workers", "0"]
    typed += ["--num_epochs", "2", "--database_path", str(corpus), "--auto_resume", "--algo", "5"]
    stop_after((1, 3))
    for name, exit_codes in (("stopped", [143, 143, 0]), ("undisturbed", [0])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert [main(typed) for _ in exit_codes] == exit_codes
    assert_same_training(run_folder(tmp_path / "stopped"), run_folder(tmp_path / "undisturbed"))
