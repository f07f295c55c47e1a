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
from training.checkpoints.data_digests import AUDIO_SIZES, content_name, is_of_audio, is_of_content, samples_name
from training.data.audio_identity import NUM_DRAWN, audio_identity
from training.planning.refusals import changed_data, encoded_anew_text, refuse_changed_data
from training.runs.survey import survey_folder
from utils.audio.sample_digest import sample_digest
from utils.corpora import Corpus, find_corpus
from utils.errors import UserError

PROTOCOLS = {"train": "a" * 64, "dev": "b" * 64}
AUDIO = {AUDIO_SIZES: "1f", content_name("train", "T_1"): "2e"}
MID_EPOCH = record("c.pth", 5, batches_done=3, data=PROTOCOLS | AUDIO)
SEED = 1234


def identity(corpus: Corpus, seed: int = SEED) -> dict[str, str]:
    return audio_identity((corpus.train, corpus.dev), seed)


def both_names(part: str, path: Path) -> list[str]:
    of_content = content_name(part, path.stem)
    return [of_content, samples_name(of_content)]


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


def train(corpus: Path, *more: str, epochs: int = 2) -> int:
    return main(["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", str(epochs), "--auto_resume", *more])


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
    assert [name for name in before if before[name] != after.get(name)] == both_names("train", path)


def test_the_contents_of_32_files_are_compared_and_the_seed_says_which(tmp_path: Path) -> None:
    corpus = find_corpus(write_corpus(tmp_path / "larger", train=30, dev=20))
    drawn = {seed: {name for name in identity(corpus, seed) if is_of_content(name)} for seed in (1, 2)}
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
    assert set(before) - set(after) == {AUDIO_SIZES, *both_names("train", opened.train.audio_paths[0])}
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


CONTENTS = [content_name("train", f"T_{number}") for number in (1, 2)]
# What a checkpoint knows of two files, and then what is there: sizes, bytes of both, samples of both.
KNOWN = {AUDIO_SIZES: "1f", **dict.fromkeys(CONTENTS, "b0"), **dict.fromkeys(map(samples_name, CONTENTS), "s0")}
BYTES_ALONE = {AUDIO_SIZES: "1f", **dict.fromkeys(CONTENTS, "b0")}
THERE = [
    (KNOWN, ("1f", "b0", "b0", "s0", "s0"), 0, "", "nothing changed"),
    (KNOWN, ("77", "b7", "b7", "s0", "s0"), 0, "2 of 2 files", "all files were encoded anew"),
    (KNOWN, ("77", "b7", "b0", "s0", "s0"), 0, "1 of 2 files", "some files were encoded anew"),
    (KNOWN, ("1f", "b7", "b0", "s0", "s0"), 0, "1 of 2 files", "another tag in a header of the same size"),
    (KNOWN, ("77", "b0", "b0", "s0", "s0"), 1, "", "some file that was not drawn is another one"),
    (KNOWN, ("77", "b7", "b7", "s0", "s7"), 2, "", "one file sounds otherwise, so the sizes tell a replacement"),
    (KNOWN, ("1f", "b7", "b0", "s7", "s0"), 1, "", "a replacement of the same size"),
    (KNOWN, ("77", "b7", "b7", None, "s0"), 2, "", "its samples cannot be read now"),
    (BYTES_ALONE, ("77", "b7", "b7", "s0", "s0"), 2, "", "a checkpoint of a version that looked at bytes alone"),
    (BYTES_ALONE, ("1f", "b0", "b0", "s0", "s0"), 0, "", "the same bytes"),
]


@pytest.mark.parametrize(("known", "there", "num_changes", "told", "why"), THERE, ids=[row[4] for row in THERE])
def test_the_same_samples_in_other_bytes_are_the_same_audio(
    known: dict[str, str], there: tuple[str | None, ...], num_changes: int, told: str, why: str
) -> None:
    names = [AUDIO_SIZES, *CONTENTS, *map(samples_name, CONTENTS)]
    found = {**PROTOCOLS, **{name: digest for name, digest in zip(names, there, strict=True) if digest}}
    source = record("c.pth", 5, batches_done=3, data=PROTOCOLS | known)
    changes = changed_data(source, found)
    assert len(changes) == num_changes, why
    text = encoded_anew_text(source, found)
    assert told in text and bool(text) is bool(told)
    if changes:
        with pytest.raises(UserError, match="add --accept_changed_audio to train the rest of the epoch"):
            refuse_changed_data(source, found)
    assert refuse_changed_data(source, found, accepts_audio=True) == changes


def test_other_protocols_are_refused_in_the_middle_of_an_epoch_whatever_audio_is_accepted() -> None:
    with pytest.raises(UserError, match="the train protocol is not the one"):
        refuse_changed_data(MID_EPOCH, {**PROTOCOLS, "train": "c" * 64}, accepts_audio=True)


def test_wav_that_becomes_flac_and_flac_of_another_level_have_the_samples_of_before(tmp_path: Path) -> None:
    sound = (3000 * np.random.default_rng(1).standard_normal((RATE, 2))).astype(np.int16)
    written = {"a.wav": {}, "b.flac": {"compression_level": 0.0}, "c.flac": {"compression_level": 1.0}}
    for name, how in written.items():
        soundfile.write(tmp_path / name, sound, RATE, **how)
    soundfile.write(tmp_path / "lower.flac", sound - np.eye(RATE, 2, dtype=np.int16), RATE)
    soundfile.write(tmp_path / "slower.flac", sound, RATE // 2)
    (tmp_path / "broken.flac").write_bytes(b"fLaC")
    digests = {path.name: sample_digest(path) for path in tmp_path.iterdir()}
    assert len({digests[name] for name in written}) == 1
    assert len({digests[name] for name in ("a.wav", "lower.flac", "slower.flac")}) == 3
    assert digests["broken.flac"] is None
    assert len({(tmp_path / name).read_bytes() for name in written}) == 3


def test_a_checkpoint_that_knows_nothing_of_its_audio_has_nothing_to_compare() -> None:
    older = record("c.pth", 5, batches_done=3, data=PROTOCOLS)
    assert refuse_changed_data(older, MID_EPOCH.data) == ()


def test_files_drawn_by_another_seed_are_not_compared() -> None:
    drawn_otherwise = {**PROTOCOLS, AUDIO_SIZES: "1f", content_name("train", "T_2"): "77"}
    assert refuse_changed_data(MID_EPOCH, drawn_otherwise) == ()


def test_where_the_protocol_is_another_one_its_audio_is_not_compared_with_that_of_before() -> None:
    changes = changed_data(MID_EPOCH, {**MID_EPOCH.data, "train": "c" * 64, AUDIO_SIZES: "77"})
    assert [change.name for change in changes] == ["train protocol"]


def test_a_run_stopped_within_an_epoch_refuses_replaced_audio_and_goes_on_with_a_copy_of_the_old_encoded_anew(
    own_corpus: Path, workplace: Path, during_step: DuringStep, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(own_corpus, workplace / "copy")
    for file in copy.rglob("*.flac"):
        samples, rate = soundfile.read(file, dtype="int16")
        file.unlink()
        soundfile.write(file.with_suffix(".wav"), samples, rate)
    stop_after(1, during_step)
    assert train(own_corpus, epochs=1) == 143
    path = find_corpus(own_corpus).train.audio_paths[0]
    replace_audio(path, same_size=True)
    assert train(own_corpus, epochs=1) != 0
    said = capsys.readouterr().err
    assert f"the content of 1 of 20 audio files that were compared (train {path.stem}) changed" in said
    assert "--accept_changed_audio" in said
    stop_after(1, during_step)
    assert train(copy, epochs=1) == 143
    told = capsys.readouterr().out
    assert "[NOTE] The audio was encoded anew: 20 of 20 files that were compared have other bytes" in told
    assert "changes detected" not in told
    replace_audio(path, same_size=False)
    during_step({})
    assert train(own_corpus, "--accept_changed_audio", epochs=1) == 0
    told = f"  - content of 1 of 20 audio files that were compared (train {path.stem}): "
    assert told in capsys.readouterr().out
    (config,) = Path("models").glob("*/config.yaml")
    assert f"until step 2 the content of 1 of 20 audio files that were compared (train {path.stem}) was" in (
        config.read_text()
    )


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
