"""Pipes, devices, sockets, folders, links and odd names wherever the program looks: each is named at once, none read.

What list, resume, validate and inspect say is one row a file; a good checkpoint beside it is listed and gone on from.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from main import main
from tests.asking import asked_training
from tests.conftest import SMALL_RUN
from tests.forging import changed, is_harmless, write_forged
from tests.records import record, write_checkpoint, write_foreign_weights
from tests.test_forged_records import GOOD, RUN, TYPED, base
from training.commands import train
from training.planning.decide import decide
from training.planning.facts import collect_facts
from training.runs.move_journal import read_move_journal
from training.settings.options import Options
from utils.console import say
from utils.errors import UserError
from utils.regular_files import NotARegularFileError, open_to_append

FILE = RUN.epoch_checkpoint(9)
OPTIONS = Options(database_path="a corpus", ssl_model="compact")
MOST_SECONDS = 60
MOST_BYTES = 1 << 32


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """Let what waits for ever, or eats all memory, fail the test and not the machine."""

    def stop(number: int, frame: FrameType | None) -> None:
        pytest.exit("a test of special files waits for something that never comes")

    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, hard))
    signal.alarm(MOST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def folder(workplace: Path) -> Path:
    """A run folder with one good checkpoint, of epoch 3."""
    write_checkpoint(GOOD, record(GOOD, 3, options=OPTIONS))
    return RUN.folder


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):  # its path may not be long
        server.bind(path.name)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def endless_list_of_entries(path: Path) -> None:
    """A zip file whose end says that its list of entries is all before it, a terabyte."""
    size = 1 << 40
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(size)
        file.write(b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 1, 1, size, 0))
        file.write(b"PK\x06\x07" + struct.pack("<LQL", 0, size, 1))
        file.write(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "data.pkl").touch()


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def link_to_a_folder(path: Path) -> None:
    path.with_name("folder").mkdir()
    path.symlink_to("folder")


def link_loop(path: Path) -> None:
    path.with_name(f"{path.name}_").symlink_to(path.name)
    path.symlink_to(f"{path.name}_")


def hidden_behind_a_file(path: Path) -> None:
    path.symlink_to(f"{GOOD.name}/x.pth")


def forged(**changes: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        made = base()
        for place, value in changes.items():
            made = changed(made, tuple(place.split("__")), value)
        write_forged(path, made)

    return make


def raw(text: str) -> Callable[[Path], None]:
    return lambda path: write_forged(path, text)


PIPE, SOCKET, DEVICE, FOLDER = (f"it is a {what}, not a file" for what in ("named pipe", "socket", "device", "folder"))
IS_NO_FILE, MISSING = "is no regular file", "No such file or directory"
DAMAGED = "its record is damaged"


@dataclass(frozen=True)
class Row:
    """One file under a checkpoint's name: how it is made, and what the verbs say is wrong with it.

    `reason` is what --list_checkpoints, the plan of --auto_resume and --validate_checkpoints say, and
    --inspect_checkpoint too unless `inspected` says what it does.
    """

    name: str
    make: Callable[[Path], object]
    reason: str
    inspected: str = ""


ROWS = [
    Row("pipe", os.mkfifo, PIPE, IS_NO_FILE),
    Row("socket", make_socket, SOCKET, IS_NO_FILE),
    Row("folder", Path.mkdir, FOLDER, "holds no last checkpoint"),
    Row("folder with a file", folder_with_a_file, FOLDER, "holds no last checkpoint"),
    Row("link to a pipe", link_to_a_pipe, PIPE, IS_NO_FILE),
    Row("link to a folder", link_to_a_folder, FOLDER, "holds no last checkpoint"),
    Row("link to zeros", link_to("/dev/zero"), DEVICE, IS_NO_FILE),
    Row("link to random bytes", link_to("/dev/urandom"), DEVICE, IS_NO_FILE),
    Row("link to nothing's device", link_to("/dev/null"), DEVICE, IS_NO_FILE),
    Row("link to the terminal", link_to("/dev/tty"), DEVICE, IS_NO_FILE),
    Row("link to standard input", link_to("/dev/stdin"), "", ""),
    Row("link to nowhere", link_to("nowhere"), MISSING, IS_NO_FILE),
    Row("link to itself", link_to(FILE.name), "Too many levels of symbolic links", IS_NO_FILE),
    Row("two links in a ring", link_loop, "Too many levels of symbolic links", IS_NO_FILE),
    Row("link through a file", hidden_behind_a_file, "Not a directory", IS_NO_FILE),
    Row("link with a name too long", link_to("x" * 300), "File name too long", IS_NO_FILE),
    Row("empty file", write(b""), "it is empty"),
    Row("one byte", write(b"P"), "it is not a checkpoint file"),
    Row("text", write(b"hello\n" * 100), "it is not a checkpoint file"),
    Row("a terabyte of nothing", sparse, "it is not a checkpoint file"),
    Row("a list of entries without end", endless_list_of_entries, "more than any file of weights"),
    Row("record: no object", raw("[]"), "its record is not a JSON object"),
    Row("record: no JSON", raw("{"), f"{DAMAGED} (it is no JSON"),
    Row("record: deep", raw("[" * 100_000), f"{DAMAGED} (it is nested more than 40 deep)"),
    Row("record: deeper than is kept", raw("[" * 50 + "]" * 50), f"{DAMAGED} (it is nested more than 40 deep)"),
    Row("record: NaN", raw('{"format": NaN}'), f"{DAMAGED} (it holds a number that is not finite)"),
    Row("record: 1e999", raw('{"format": 1e999}'), f"{DAMAGED} (it holds a number that is not finite)"),
    Row("record: endless digits", raw('{"format": ' + "9" * 5000 + "}"), f"{DAMAGED} (it is no JSON"),
    Row("record: large number", raw('{"format": ' + "9" * 40 + "}"), f"{DAMAGED} (it holds a whole number that is"),
    Row("record: lone surrogate", raw('{"format": "\\ud800"}'), f"{DAMAGED} (it holds a text that is none"),
    Row("record: empty", raw("{}"), "it has format None"),
    Row("record: another format", forged(format=99), "it has format 99"),
    Row("record: true as a number", forged(epoch=True), f"{DAMAGED} (it has no sensible epoch (found True))"),
    Row("record: epoch below 0", forged(epoch=-1), f"{DAMAGED} (it has no sensible epoch (found -1))"),
    Row("record: id that leads away", forged(lineage=[["../x", 0]]), f"{DAMAGED} (it has no sensible lineage"),
    Row("record: name that leads away", forged(name="../../x.pth"), f"{DAMAGED} (it has no sensible name"),
    Row("record: name with escapes", forged(name="a\x1b[2J"), f"{DAMAGED} (it has no sensible name"),
    Row("record: rate below 0", forged(learning_rate=-1.0), f"{DAMAGED} (it has no sensible learning_rate"),
    Row("record: figures as text", forged(last__val_eer="low"), f"{DAMAGED} (it has no sensible val_eer"),
    Row("record: settings of text", forged(options__lr="fast"), "--lr must be a number, found 'fast'"),
    Row("record: no threads", forged(metadata__num_threads=0), f"{DAMAGED} (it has no sensible num_threads"),
    Row("record: half a decision", forged(decision__num_spoof=None), f"{DAMAGED} (it has some of"),
    Row("record: more done than there is", forged(batches_done=99), f"{DAMAGED} (99 of 10 batches are done)"),
    Row("record: data of numbers", forged(data__train=5), f"{DAMAGED} (it has no sensible data"),
]
ROWS = [row for row in ROWS if row.reason]


def said_by(capsys: pytest.CaptureFixture[str], *typed: object) -> str:
    capsys.readouterr()
    code = main([*map(str, typed)])
    said = capsys.readouterr()
    assert code in (0, 1), said.err
    assert is_harmless(said.out) and is_harmless(said.err), said
    return said.out + said.err


def planned(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    capsys.readouterr()
    request = asked_training(*TYPED, *typed)
    train.announce(decide(request, collect_facts(request)))
    return capsys.readouterr().out


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_bad_file_is_named_by_every_verb_and_the_good_one_is_gone_on_from(
    row: Row, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row.make(FILE)
    listed = said_by(capsys, "--list_checkpoints", *TYPED)
    assert f"Cannot be used: {FILE}: " in listed and row.reason in listed and f"📦 {GOOD.name}" in listed
    plan = planned(capsys, "--auto_resume")
    assert f"Plan: resume {GOOD} at" in plan and f"passed over {FILE}: " in plan and row.reason in plan
    validated = said_by(capsys, "--validate_checkpoints", folder)
    assert f"\n{FILE}: " in f"\n{validated}" and row.reason in validated and f"{GOOD}: UNUSABLE: it lacks" in validated
    inspected = said_by(capsys, "--inspect_checkpoint", FILE)
    assert (row.inspected or row.reason) in inspected, inspected
    with pytest.raises(UserError, match="checkpoint_epoch_9"):
        planned(capsys, "--resume", "--model_path", str(FILE))


@pytest.mark.parametrize("make", [os.mkfifo, link_to("/dev/zero"), link_loop, Path.mkdir, sparse, forged(epoch="x")])
def test_a_bad_file_of_a_neighbour_stops_nothing(
    make: Callable[[Path], object], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("models/another_run", "outputs/another/checkpoints/version_0"):
        Path(place).mkdir(parents=True)
        make(Path(place, "checkpoint_epoch_1.pth"))
    listed = said_by(capsys, "--list_checkpoints", *TYPED)
    assert "No checkpoints in" in listed and "models/another_run" in listed and "outputs/another" in listed
    assert "train from epoch 1" in planned(capsys, "--auto_resume")


@pytest.mark.parametrize("root", ["models", "outputs", "logs"])
@pytest.mark.parametrize("make", [os.mkfifo, make_socket, link_to("/dev/zero"), link_to("nowhere"), link_loop])
def test_what_is_no_folder_among_the_runs_stops_nothing(
    root: str, make: Callable[[Path], object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(root).mkdir(exist_ok=True)
    make(Path(root, "odd"))
    assert GOOD.name in said_by(capsys, "--list_checkpoints", *TYPED)
    assert f"resume {GOOD}" in planned(capsys, "--auto_resume")
    assert "train from epoch 1" in planned(capsys, "--auto_resume", "--comment", "another")


ODD_NAMES = [
    b"a\x1b[2J.pth",
    b"a\nCannot be used.pth",
    b"a\r.pth",
    b"a\x9b2J.pth",
    "a\u202eb.pth".encode(),
    b"a\xff.pth",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_a_name_cannot_act_on_the_terminal_and_the_file_is_told_all_the_same(
    name: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (folder, Path("models", "another")):
        place.mkdir(exist_ok=True)
        write_foreign_weights(place / os.fsdecode(name))
        (place / os.fsdecode(b"bad" + name)).touch()
    listed = said_by(capsys, "--list_checkpoints", *TYPED)
    assert "Weights only: " in listed and not any(line.startswith("Cannot be used.pth") for line in listed.splitlines())
    assert "weights only: ok" in said_by(capsys, "--validate_checkpoints", folder)
    assert "model_state_dict" in said_by(capsys, "--inspect_checkpoint", folder / os.fsdecode(name))
    said_by(capsys, "--list_checkpoints", *TYPED, "--json")
    assert is_harmless(planned(capsys, "--auto_resume"))
    said_by(capsys, "--resume", "--model_path", folder / os.fsdecode(b"bad" + name))


def test_whatever_is_said_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\u202e\udcff\r\nsecond line, \u00a0录音 📋")
    assert capsys.readouterr().out == "a?[2Jb???\nsecond line, \u00a0录音 📋\n"


# Journals of an interrupted move

LEADS_AWAY = [
    '{"version": 1, "entries": ["../OTHER_RUN"], "log_entries": []}',
    '{"version": 1, "entries": ["/etc"], "log_entries": []}',
    '{"version": 1, "entries": [".."], "log_entries": []}',
    '{"version": 1, "entries": ["."], "log_entries": []}',
    '{"version": 1, "entries": [""], "log_entries": []}',
    '{"version": 1, "entries": [".lock"], "log_entries": []}',
    '{"version": 1, "entries": ["version_1"], "log_entries": []}',
    '{"version": 1, "entries": [], "log_entries": ["../x"]}',
    '{"version": "../x", "entries": [], "log_entries": []}',
    '{"version": 0, "entries": [], "log_entries": []}',
    '{"version": true, "entries": [], "log_entries": []}',
    '{"version": 1e999, "entries": [], "log_entries": []}',
    '{"version": 9999999999, "entries": [], "log_entries": []}',
    '{"version": 1, "entries": "abc", "log_entries": []}',
    '{"version": 1, "entries": ["\\u0000"], "log_entries": []}',
    '{"version": 1, "entries": ["\\ud800"], "log_entries": []}',
    '{"version": 1, "entries": [[]], "log_entries": []}',
    '{"version": 1}',
    "[]",
    "5",
    "",
    "[" * 100_000,
]


def of_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    "make",
    [*map(of_text, LEADS_AWAY), os.mkfifo, Path.mkdir, make_socket, link_to("/dev/zero"), link_loop, sparse],
    ids=[text[:60] for text in LEADS_AWAY] + ["pipe", "folder", "socket", "zeros", "ring", "terabyte"],
)
def test_a_journal_that_makes_no_sense_moves_nothing_and_hides_nothing(
    make: Callable[[Path], object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder.with_name("OTHER_RUN")
    other.mkdir()
    make(RUN.move_journal)
    listed = said_by(capsys, "--list_checkpoints", *TYPED)
    assert GOOD.name in listed and f"Cannot be used: {RUN.move_journal}: it says what is being moved aside" in listed
    assert GOOD.name in said_by(capsys, "--validate_checkpoints", folder)
    assert "Epoch: 3" in said_by(capsys, "--inspect_checkpoint", folder)
    for typed in (["--auto_resume"], ["--resume", "--model_path", str(GOOD)], []):
        with pytest.raises(UserError, match=r"\.moving_aside\.json cannot be used: .* remove that file"):
            planned(capsys, *typed)
    assert other.is_dir() and GOOD.is_file()
    assert "train from epoch 1" in planned(capsys, "--comment", "another")  # a neighbour's is nobody's business


def test_a_link_to_nowhere_is_no_journal(folder: Path) -> None:
    RUN.move_journal.symlink_to("nowhere")
    assert read_move_journal(folder) is None


# Other files of a run folder, and files that are given

TOLD_NOTHING = [
    "training_log.csv",
    "report.html",
    "config.yaml",
    "trained_names.bin",
    "last_checkpoint.pth",
    "version_2",
]


@pytest.mark.parametrize("name", [*TOLD_NOTHING, "attention_epoch_1", ".lock", "frozen_0123456789abcdef.pth"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, link_to("/dev/zero"), link_loop, sparse], ids=["pipe", "zeros", "ring", "huge"]
)
def test_looking_at_a_run_waits_for_none_of_its_files(
    name: str, make: Callable[[Path], object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder / name)
    assert GOOD.name in said_by(capsys, "--list_checkpoints", *TYPED)
    assert GOOD.name in said_by(capsys, "--validate_checkpoints", folder)
    assert f"resume {GOOD}" in planned(capsys, "--auto_resume")


@pytest.mark.parametrize("make", [os.mkfifo, link_to("/dev/zero"), Path.mkdir, link_loop, sparse], ids=range(5))
@pytest.mark.parametrize(
    "typed",
    [
        ["--config", "given"],
        ["--model_path", "given"],
        ["--resume", "--model_path", "given"],
        ["--ssl_model", "given", "--database_path", "demo"],
        ["--eval", "--model_path", "given"],
        ["--export", "checkpoint", "--model_path", "given"],
        ["--inspect_checkpoint", "given"],
        ["--validate_checkpoints", "given"],
    ],
    ids=lambda typed: typed[0],
)
def test_what_is_given_and_is_no_file_is_refused_in_a_sentence(
    make: Callable[[Path], object], typed: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path("given"))
    assert main(typed) in (1, 2)
    said = capsys.readouterr()
    assert "given" in said.out + said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    "make", [os.mkfifo, link_to("/dev/null"), Path.mkdir, link_to("nowhere"), link_loop], ids=range(5)
)
def test_nothing_is_exported_onto_what_is_there(
    make: Callable[[Path], object], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(Path("there.pth"))
    said = said_by(capsys, "--export", "checkpoint", "--model_path", GOOD, "--export_path", "there.pth")
    assert "there.pth exists already" in said


@pytest.mark.parametrize("make", [os.mkfifo, link_to("/dev/null"), Path.mkdir, link_loop], ids=range(4))
def test_scores_and_pictures_are_written_onto_nothing_else(
    make: Callable[[Path], object], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.evaluation.evaluation_set import _refuse_to_overwrite  # noqa: PLC0415  (torch)

    make(Path("there"))
    with pytest.raises(UserError, match="--eval_output there is no name for a score file"):
        _refuse_to_overwrite(Path("there"))
    if not Path("there").is_dir():
        Path("scores.txt").write_text("a A01 spoof -1\nb - bonafide 1\nc - bonafide 2\n")
        assert "--plots there: the pictures cannot be written" in said_by(
            capsys, "--metrics", "scores.txt", "--plots", "there"
        )


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, link_to("/dev/null"), link_to("elsewhere")], ids=range(4))
def test_a_lock_is_taken_in_a_file_and_nowhere_else(make: Callable[[Path], object], workplace: Path) -> None:
    Path("elsewhere").write_text("mine")
    make(Path(".lock"))
    with pytest.raises(NotARegularFileError):
        open_to_append(Path(".lock"))
    assert Path("elsewhere").read_text() == "mine"


def test_a_run_is_finished_and_begun_anew_where_its_reports_are_pipes_now(
    workplace: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["--database_path", str(corpus), *SMALL_RUN, "--num_epochs", "1"]
    assert main(typed) == 0
    (run,) = Path("models").iterdir()
    names = ["training_log.csv", "report.html", "config.yaml", "trained_names.bin"]
    for name in names:
        (run / name).unlink()
        os.mkfifo(run / name)
    assert main([*typed, "--auto_resume"]) == 0, capsys.readouterr().err
    assert all((run / name).is_file() for name in names[:2])  # which are made anew where there is nothing to train
    assert main(typed) == 0, capsys.readouterr().err
    assert all((run / name).is_file() for name in names)
    (run / ".lock").unlink()
    os.mkfifo(run / ".lock")
    assert main(typed) == 1
    assert "it is a named pipe, not a file" in capsys.readouterr().err


# Only the owner of a file may be refused it: for root these tests become somebody else


@pytest.fixture
def as_nobody(workplace: Path) -> Iterator[None]:
    if os.geteuid() == 0:
        workplace.chmod(0o777)
        os.seteuid(65_534)
        yield
        os.seteuid(0)
    else:
        yield


def test_folders_and_files_without_permission_are_named_or_passed_over(
    as_nobody: None, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(GOOD, record(GOOD, 3, options=OPTIONS))
    write_checkpoint(FILE, record(FILE, 9, options=OPTIONS))
    closed = [
        Path("models/closed"),
        Path("outputs/closed"),
        Path("outputs/x/checkpoints/version_0"),
        RUN.version_folder(1),
    ]
    for path in closed:
        path.mkdir(parents=True)
        path.chmod(0)
    FILE.chmod(0)
    try:
        listed = said_by(capsys, "--list_checkpoints", *TYPED)
        assert f"Cannot be used: {FILE}: it cannot be read (Permission denied)" in listed and GOOD.name in listed
        assert f"resume {GOOD}" in planned(capsys, "--auto_resume")
        assert "Permission denied" in said_by(capsys, "--inspect_checkpoint", FILE)
        assert "the folder models/closed cannot be read" in said_by(
            capsys, "--list_checkpoints", "--model_path", closed[0]
        )
        validated = said_by(capsys, "--validate_checkpoints", RUN.folder)
        assert f"the folder {RUN.version_folder(1)} cannot be read" in validated and f"{GOOD}: " in validated
    finally:
        for path in closed:
            path.chmod(0o700)
