"""--make_spoofs: files like their sources, a folder that is a corpus, and the same bytes however it was interrupted."""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from main import main
from tests.small_audio import babble
from training.spoofs import making
from training.spoofs.claims import Claims
from training.spoofs.folder import CLAIMS, RECORD, Made
from training.spoofs.layout import distinct_names
from training.spoofs.vocoders import NamedVocoder
from utils.atomic_files import atomic_write
from utils.corpora import find_corpus, find_evaluation_part
from utils.corpora.trials import sources_of
from utils.errors import EXIT_FAILURE, EXIT_USAGE

BOTH = ("lpc", "sinusoidal")
FIXTURES = Path(__file__).parent / "fixtures"
# What is in the corpus: a bona fide file in each of several formats, and a spoof that nobody copies.
TABLES = {
    "train": ["deep/a.flac,bonafide,-,s1", "b.wav,bonafide,-,s2", "c.ogg,bonafide,-,s2", "fake.wav,spoof,A01,s1"],
    "dev": ["d.wav,bonafide,-,s3", "e.flac,bonafide,-,s3", "fake2.wav,spoof,A02,s3"],
    "eval": ["f.flac,bonafide,-,s4", "fake3.wav,spoof,A03,s4"],
}
NUM_FILES = 6 * (1 + len(BOTH))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of six short bona fide files."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "deep").mkdir()
    for part, rows in TABLES.items():
        (folder / f"{part}.csv").write_text("\n".join(["path,label,attack,speaker", *rows]) + "\n")
        for number, row in enumerate(rows):
            soundfile.write(folder / row.partition(",")[0], 0.4 * babble(0.2 + 0.05 * number), 16_000)
    return folder


@pytest.fixture(scope="module")
def made(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed process makes of it, which no test changes."""
    folder = tmp_path_factory.mktemp("made") / "spoofs"
    assert make(folder, sources) == 0
    return folder


def make(folder: Path, sources: Path, *vocoders: str) -> int:
    return main(["--make_spoofs", str(folder), "--database_path", str(sources), "--vocoders", *(vocoders or BOTH)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def in_fork(work: Callable[[], Any]) -> Any:
    """Start a process that does this and ends, killed if it says so itself, with its result as the exit code."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(int(work() or 0)))
    process.start()
    return process


def test_the_folder_is_a_corpus_with_the_source_of_each_spoof(made: Path) -> None:
    corpus = find_corpus(made)
    parts = (corpus.train, corpus.dev, find_evaluation_part(made))
    assert [(part.protocol.num_bona_fide, part.protocol.num_spoof) for part in parts] == [(3, 6), (2, 4), (1, 2)]
    for part in parts:
        assert part.protocol.attacks == BOTH
        trials = part.protocol.trials
        for trial, source in zip(trials, sources_of(trials), strict=True):
            assert trial.is_bona_fide == (source is None)
            if source is not None:
                assert Path(trials[source].utterance).name == Path(trial.utterance).name
                assert trials[source].speaker == trial.speaker != "-"
    assert (made / "dev.csv").read_text().splitlines()[:3] == [
        "path,label,attack,speaker,source",
        "dev/bonafide/d.wav,bonafide,-,s3,-",
        "dev/lpc/d.wav,spoof,lpc,s3,dev/bonafide/d.wav",
    ]


def test_the_check_of_data_is_content_with_it(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check_data", str(made)]) == 0
    told = capsys.readouterr().out
    assert "Nothing stands in the way of training: 9 train and 6 dev utterances" in told
    assert "[ERROR]" not in told and " 0 other audio files" in told


def test_bona_fide_files_are_copies_that_need_no_source(made: Path, sources: Path) -> None:
    for name, original in (("train/bonafide/deep/a.flac", "deep/a.flac"), ("train/bonafide/c.ogg", "c.ogg")):
        assert (made / name).read_bytes() == (sources / original).read_bytes()
        assert not (made / name).samefile(sources / original)


def test_nothing_is_left_beside_the_corpus_and_its_record(made: Path) -> None:
    assert len(contents(made)) == NUM_FILES + len(TABLES) + 1
    assert sorted(path.name for path in made.iterdir()) == sorted(
        ["dev", "dev.csv", "eval", "eval.csv", RECORD, "train", "train.csv"]
    )


def test_names_lead_nowhere_else() -> None:
    names = distinct_names(["../../a", "/a", "b/../../c", ".hidden", "x\ny", "A", "\udcff"])
    assert names == ["a", "a_2", "b/c", "_hidden", "x_y", "A_3", "_"]


def kill_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be killed at the last byte of file `moment // 2`, or after that file has its name, if odd."""
    seen = [0]

    class Killing:
        def __init__(self, path: Path) -> None:
            self._writing = atomic_write(path)

        def __enter__(self) -> Any:
            return self._writing.__enter__()

        def __exit__(self, *raised: object) -> None:
            self._die_if(2 * seen[0])
            self._writing.__exit__(*raised)  # type: ignore[arg-type]
            self._die_if(2 * seen[0] + 1)
            seen[0] += 1

        def _die_if(self, now: int) -> None:
            if now == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(making, "atomic_write", Killing)


@pytest.mark.parametrize("moments", [(0, 1), (5, 8, 3), (2 * NUM_FILES - 1,)])
def test_killed_anywhere_and_repeated_it_ends_with_the_same_bytes(
    moments: tuple[int, ...], made: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spoofs"
    for moment in moments:
        with monkeypatch.context() as patched:
            kill_at(moment, patched)
            process = in_fork(lambda: make(folder, sources))
            process.join()
        assert process.exitcode == -signal.SIGKILL
        assert (folder / CLAIMS).exists() and not (folder / "train.csv").exists()
    assert make(folder, sources) == 0
    assert contents(folder) == contents(made)


def test_stopped_it_says_how_to_go_on_and_does(
    made: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, copies = tmp_path / "spoofs", iter(range(100))
    original = NamedVocoder.copy

    def copy_and_interrupt(*arguments: Any) -> Any:
        if next(copies) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(NamedVocoder, "copy", copy_and_interrupt)
        assert make(folder, sources) == 130
    assert "--make_spoofs was stopped by Ctrl-C after 5 files: the same command goes on" in capsys.readouterr().err
    assert make(folder, sources) == 0
    assert f"{NUM_FILES - 5} files made" in capsys.readouterr().out
    assert contents(folder) == contents(made)


class Signal:
    """What one process tells another, which waits for it."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def give(self) -> None:
        os.write(self._writing, b"x")

    def wait(self) -> None:
        assert select.select([self._reading], [], [], 60)[0], "nobody told"
        os.read(self._reading, 1)


@pytest.mark.parametrize("is_killed", [False, True])
def test_two_processes_divide_the_files_and_the_last_one_finishes_what_a_killed_one_had(
    is_killed: bool, made: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is held in its first file until the second has made some others, or all of them."""
    folder, log = tmp_path / "spoofs", tmp_path / "log"
    log.touch()
    original, holds = making._Maker._write, True
    begun, let_go, enough = Signal(), Signal(), Signal()

    def write(maker: Any, name: str, write_it: Any) -> None:
        mine = log.read_text().count(f" {os.getpid()}\n")
        if holds and not mine:
            begun.give()
            let_go.wait()
        if not holds and mine == (NUM_FILES - 4 if is_killed else 9):
            enough.give()
        original(maker, name, write_it)
        with log.open("a") as file:
            file.write(f"{name} {os.getpid()}\n")

    monkeypatch.setattr(making._Maker, "_write", write)
    first = in_fork(lambda: make(folder, sources))
    begun.wait()
    holds = False
    second = in_fork(lambda: make(folder, sources))
    enough.wait()
    first.kill() if is_killed else let_go.give()
    for process in (first, second):
        process.join()
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL if is_killed else 0, 0)
    written = [line.partition(" ") for line in log.read_text().splitlines()]
    assert sorted(name for name, _, _ in written) == sorted(
        name for name in contents(made) if name.count("/") and not name.endswith(".csv")
    )
    of_first = sum(pid == str(first.pid) for _, _, pid in written)
    assert of_first == 0 if is_killed else 3 <= of_first <= NUM_FILES - 10
    assert contents(folder) == contents(made)


def test_a_killed_process_has_no_claims(tmp_path: Path) -> None:
    taken = Signal()

    def hold() -> None:
        with Claims(tmp_path / CLAIMS) as claims:
            assert claims.take(3)
            taken.give()
            signal.pause()

    process = in_fork(hold)
    taken.wait()
    with Claims(tmp_path / CLAIMS) as claims:
        assert (claims.take(3), claims.take(4)) == (False, True)
        process.kill()
        process.join()
        assert claims.take(3)


def broken(sources: Path, folder: Path, name: str) -> Path:
    """Return a copy of the corpus, of which a file is cut."""
    copy = shutil.copytree(sources, folder / "broken")
    (copy / name).write_bytes((sources / name).read_bytes()[:300])
    return copy


def test_what_cannot_be_read_is_named_and_the_rest_is_made(
    made: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, folder = broken(sources, tmp_path, "deep/a.flac"), tmp_path / "spoofs"
    assert make(folder, corpus) == EXIT_FAILURE
    told = capsys.readouterr().out
    assert f"[ERROR] {corpus}/deep/a.flac: the audio file cannot be read" in told
    assert "Not made, as told above: 1" in told
    assert not any("deep" in line for line in (folder / "train.csv").read_text().splitlines())
    assert len(find_corpus(folder).train) == 2 * 3
    shutil.copy(sources / "deep/a.flac", corpus / "deep/a.flac")
    assert make(folder, corpus) == 0
    assert contents(folder) == contents(made)


@pytest.mark.parametrize("as_table", [True, False])
def test_a_corpus_may_have_bona_fide_speech_alone(as_table: bool, tmp_path: Path) -> None:
    """One table, or class folders without spoofs, neither of which names parts: they are divided."""
    for number in range(10):
        path = tmp_path / "corpus" / "bonafide" / f"u{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, babble(0.1), 16_000)
    if as_table:
        rows = ["path,label", *(f"bonafide/u{number}.wav,bonafide" for number in range(10))]
        (tmp_path / "corpus" / "all.csv").write_text("\n".join(rows) + "\n")
    assert make(tmp_path / "spoofs", tmp_path / "corpus", "lpc") == 0
    corpus = find_corpus(tmp_path / "spoofs")
    assert (len(corpus.train), len(corpus.dev)) == (16, 4)
    assert {len(Path(trial.utterance).parts) for trial in corpus.train.protocol.trials} == {3}


def test_where_nothing_can_be_read_there_is_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, folder = tmp_path / "corpus", tmp_path / "spoofs"
    corpus.mkdir()
    (corpus / "eval.csv").write_text("path,label\nb.wav,bonafide\n")
    (corpus / "b.wav").write_bytes(b"RIFF")
    assert make(folder, corpus) == EXIT_FAILURE
    assert f"0 files made; {folder} holds nothing that could be read" in capsys.readouterr().out
    assert not list(folder.glob("*.csv"))


def test_a_source_that_was_replaced_is_noticed(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, folder = Path(shutil.copytree(sources, tmp_path / "corpus")), tmp_path / "spoofs"
    assert make(folder, corpus, "lpc") == 0
    before = contents(folder)
    soundfile.write(corpus / "b.wav", babble(0.3), 16_000)
    assert make(folder, corpus, "lpc") == EXIT_FAILURE
    assert f"[ERROR] {corpus}/b.wav is another file than {folder}/train/bonafide/b.wav" in capsys.readouterr().out
    assert contents(folder) == before


def test_a_vocoder_that_makes_no_speech_of_a_file_is_named(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverged(vocoder: NamedVocoder, waveform: np.ndarray, utterance: str) -> np.ndarray:
        return np.full_like(waveform, np.nan if utterance == "dev/d" else 0.1)

    monkeypatch.setattr(NamedVocoder, "copy", diverged)
    assert make(tmp_path / "spoofs", sources, "lpc") == EXIT_FAILURE
    assert f"[ERROR] lpc made no speech of {sources}/d.wav (sample 0 is not finite)" in capsys.readouterr().out
    assert "dev/bonafide/d.wav" in (tmp_path / "spoofs/dev.csv").read_text()
    assert "dev/lpc/d.wav" not in (tmp_path / "spoofs/dev.csv").read_text()


def test_a_full_disk_is_told_and_the_same_command_goes_on(
    made: Path, sources: Path, tiny_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filler = tiny_disk / "filler"
    filler.write_bytes(bytes(30_000))
    folder = tiny_disk / "spoofs"
    assert make(folder, sources) == EXIT_FAILURE
    assert f"--make_spoofs {folder} cannot be written (No space left on device)" in capsys.readouterr().err
    assert not [name for name in contents(folder) if ".tmp-" in name]


MADE = Made({"train": "0a", "dev": "0b"}, {"lpc": "1", "world": "pyworld 0.3.4"})
DIFFERENCES = [
    ("nothing", MADE, []),
    ("threads alone", Made(MADE.corpus, MADE.vocoders, 8), []),
    ("a vocoder more", Made(MADE.corpus, {"griffin_lim": "1", **MADE.vocoders}), ["vocoders are lpc, world there and"]),
    ("another version", Made(MADE.corpus, {"lpc": "1", "world": "pyworld 0.3.5"}), ["world is pyworld 0.3.4 there"]),
    ("another corpus", Made({"train": "0a", "dev": "0c"}, MADE.vocoders), ["its dev part is of another protocol"]),
    ("a part more", Made({**MADE.corpus, "eval": "0d"}, MADE.vocoders), ["it has no eval part there"]),
]


@pytest.mark.parametrize(("now", "words"), [row[1:] for row in DIFFERENCES], ids=[row[0] for row in DIFFERENCES])
def test_other_settings_are_told_apart(now: Made, words: list[str]) -> None:
    found = MADE.differences(now)
    assert len(found) == len(words)
    assert all(word in told for word, told in zip(words, found, strict=True))


def test_spoofs_that_were_made_otherwise_are_refused_and_left(
    made: Path, sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(made)
    assert make(made, sources, "lpc") == EXIT_FAILURE
    told = capsys.readouterr().err
    assert f"--make_spoofs {made} holds spoofs that were made otherwise: its vocoders are lpc, sinusoidal there" in told
    assert contents(made) == before
    assert make(made, sources, *reversed(BOTH)) == 0, "the order in which they are named is none of it"
    assert contents(made) == before


# What is typed behind --make_spoofs, where {out} is a folder that is not there yet and {sources} the corpus.
REFUSED = [
    ("no vocoder", "{out}", EXIT_USAGE, "--make_spoofs needs vocoders: pass --vocoders NAME..., such as griffin_lim"),
    ("the corpus itself", "{sources} --vocoders lpc", 1, "lies within the corpus"),
    ("within the corpus", "{sources}/new --vocoders lpc", 1, "lies within the corpus"),
    (
        "misspelt",
        "{out} --vocoders sinusodial",
        1,
        "--vocoders sinusodial is no vocoder and no file or folder: did you",
    ),
    ("twice", "{out} --vocoders lpc sinusoidal lpc", 1, "--vocoders lpc and lpc are one vocoder: name it once"),
    ("no such checkpoint", "{out} --model_path no.pth", 1, "--model_path no.pth is no vocoder and no file or folder"),
    (
        "a detector",
        "{out} --vocoders {fixtures}/format_1/best_model_eer.pth",
        1,
        "holds a detector (g3_heatmap), and no",
    ),
    ("a folder without checkpoints", "{out} --vocoders {sources}", 1, "--vocoders {sources} holds no last checkpoint"),
    ("a folder with other things", "{fixtures} --vocoders lpc", 1, "--make_spoofs {fixtures} holds other things ("),
    ("a file", "{sources}/../file --vocoders lpc", 1, "file is no folder: pass one that is empty or not there yet"),
    ("no corpus", "{out} --vocoders lpc --database_path {fixtures}", 1, "is not a corpus that is known"),
    (
        "no bona fide speech",
        "{out} --vocoders lpc --database_path {fakes}",
        1,
        "has no bona fide speech to make spoofs",
    ),
]


@pytest.mark.parametrize(("typed", "code", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_begun_is_refused_and_nothing_is_written(
    typed: str, code: int, words: str, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sources.parent / "file").touch()
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    (fakes / "eval.csv").write_text("path,label\nfake.wav,spoof\n")
    places = {"out": tmp_path / "out", "sources": sources, "fixtures": FIXTURES, "fakes": fakes}
    command = ["--database_path", str(sources), "--make_spoofs", *typed.format(**places).split()]
    assert main(command) == code
    told = capsys.readouterr().err
    assert words.format(**places) in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert contents(sources).keys() == {row.partition(",")[0] for rows in TABLES.values() for row in rows} | {
        f"{part}.csv" for part in TABLES
    }


def test_a_damaged_record_is_told(
    made: Path, sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "spoofs"))
    (folder / RECORD).write_text("{")
    assert make(folder, sources) == EXIT_FAILURE
    assert f"{folder / RECORD} cannot be read" in capsys.readouterr().err
