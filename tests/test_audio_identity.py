"""Audio that is replaced under the same names is noticed at the next start; a copy of a corpus is the same corpus."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from main import main
from tests.conftest import RATE, SMALL_RUN, DuringStep, write_corpus
from tests.records import record
from training.checkpoints.data_digests import AUDIO_SIZES, content_name, is_of_audio
from training.data.audio_identity import NUM_DRAWN, audio_identity
from training.planning.refusals import changed_data, refuse_changed_data
from training.runs.survey import survey_folder
from utils.corpora import Corpus, find_corpus
from utils.errors import UserError

PROTOCOLS = {"train": "a" * 64, "dev": "b" * 64}
AUDIO = {AUDIO_SIZES: "1f", content_name("train", "T_1"): "2e"}
MID_EPOCH = record("c.pth", 5, batches_done=3, data=PROTOCOLS | AUDIO)
SEED = 1234


def identity(corpus: Corpus, seed: int = SEED) -> dict[str, str]:
    return audio_identity((corpus.train, corpus.dev), seed)


@pytest.fixture
def own_corpus(tmp_path: Path) -> Path:
    """A corpus that a test may change."""
    return write_corpus(tmp_path / "own corpus")


def replace_audio(path: Path, *, same_size: bool) -> None:
    """Put something else under the name of a file: other sound, or one bit, which leaves the size as it is."""
    if same_size:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        soundfile.write(path, 0.1 * np.random.default_rng(7).standard_normal(RATE), RATE)


def train(corpus: Path, epochs: int = 2) -> int:
    typed = ["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", str(epochs), "--auto_resume"]
    return main(typed)


def stop_after(steps: int, during_step: DuringStep) -> None:
    during_step({steps: lambda: signal.raise_signal(signal.SIGTERM)})


def test_a_copy_of_a_corpus_is_the_same_corpus_whatever_its_times_are(own_corpus: Path, tmp_path: Path) -> None:
    before = identity(find_corpus(own_corpus))
    copy = shutil.copytree(own_corpus, tmp_path / "copy")
    for path in copy.rglob("*.flac"):
        os.utime(path, (1, 1))
    assert identity(find_corpus(copy)) == before


def test_a_file_of_another_size_changes_the_digest_of_sizes(own_corpus: Path) -> None:
    before = identity(find_corpus(own_corpus))
    replace_audio(find_corpus(own_corpus).dev.audio_paths[3], same_size=False)
    assert identity(find_corpus(own_corpus))[AUDIO_SIZES] != before[AUDIO_SIZES]


def test_a_file_of_the_same_size_and_other_content_changes_its_own_digest_and_no_other(own_corpus: Path) -> None:
    before = identity(find_corpus(own_corpus))
    path = find_corpus(own_corpus).train.audio_paths[3]
    replace_audio(path, same_size=True)
    after = identity(find_corpus(own_corpus))
    assert [name for name in before if before[name] != after[name]] == [content_name("train", path.stem)]


def test_the_contents_of_32_files_are_compared_and_the_seed_says_which(tmp_path: Path) -> None:
    corpus = find_corpus(write_corpus(tmp_path / "larger", train=30, dev=20))
    drawn = {seed: {name for name in identity(corpus, seed) if name != AUDIO_SIZES} for seed in (1, 2)}
    assert len(drawn[1]) == len(drawn[2]) == NUM_DRAWN == 32
    assert drawn[1] != drawn[2]
    assert identity(corpus, 1) == identity(corpus, 1)


def test_drawing_the_files_uses_no_random_state_of_the_training(corpus: Path) -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]

    before = states()
    identity(find_corpus(corpus))
    assert states() == before


def test_audio_that_cannot_be_read_now_has_no_digest_and_is_not_compared(own_corpus: Path) -> None:
    opened = find_corpus(own_corpus)
    before = identity(opened)
    opened.train.audio_paths[0].unlink()
    after = identity(opened)
    assert set(before) - set(after) == {AUDIO_SIZES, content_name("train", opened.train.audio_paths[0].stem)}
    assert changed_data(record("c.pth", 5, data=before), after) == ()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({AUDIO_SIZES: "77"}, "the sizes of the audio files changed"),
        ({content_name("train", "T_1"): "77"}, r"the content of 1 of 1 audio files that were compared \(train T_1\)"),
    ],
)
def test_replaced_audio_is_refused_in_the_middle_of_an_epoch(found: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=rf"{told}.*, under the same names\), and .* middle of epoch 6"):
        refuse_changed_data(MID_EPOCH, {**MID_EPOCH.data, **found})


def test_a_checkpoint_that_knows_nothing_of_its_audio_has_nothing_to_compare() -> None:
    older = record("c.pth", 5, batches_done=3, data=PROTOCOLS)
    assert refuse_changed_data(older, MID_EPOCH.data) == ()


def test_files_drawn_by_another_seed_are_not_compared() -> None:
    drawn_otherwise = {**PROTOCOLS, AUDIO_SIZES: "1f", content_name("train", "T_2"): "77"}
    assert refuse_changed_data(MID_EPOCH, drawn_otherwise) == ()


def test_where_the_protocol_is_another_one_its_audio_is_not_compared_with_that_of_before() -> None:
    changes = changed_data(MID_EPOCH, {**MID_EPOCH.data, "train": "c" * 64, AUDIO_SIZES: "77"})
    assert [change.name for change in changes] == ["train protocol"]


def test_a_run_stopped_within_an_epoch_refuses_replaced_audio_and_goes_on_with_a_copy_of_the_old(
    own_corpus: Path, workplace: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(own_corpus, workplace / "copy")
    stop_after(1, during_step)
    assert train(own_corpus) == 143
    path = find_corpus(own_corpus).train.audio_paths[0]
    replace_audio(path, same_size=True)
    assert train(own_corpus) != 0
    said = capsys.readouterr().err
    assert f"the content of 1 of 20 audio files that were compared (train {path.stem}) changed" in said
    during_step({})
    assert train(copy) == 0
    assert "changes detected" not in capsys.readouterr().out


def test_a_run_stopped_between_epochs_tells_replaced_audio_once_and_goes_on(
    own_corpus: Path, workplace: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_after(3, during_step)  # the last step of the epoch: what is under way is trained
    assert train(own_corpus) == 143
    replace_audio(find_corpus(own_corpus).dev.audio_paths[0], same_size=False)
    stop_after(1, during_step)
    capsys.readouterr()
    assert train(own_corpus) == 143
    assert "  - sizes of the audio files: " in capsys.readouterr().out
    during_step({})
    assert train(own_corpus) == 0
    assert "changes detected" not in capsys.readouterr().out
    (folder,) = Path("models").iterdir()
    latest = survey_folder(folder).latest
    assert latest is not None
    assert {name: text for name, text in latest.data.items() if is_of_audio(name)} == identity(find_corpus(own_corpus))
