"""Every state that a power cut may leave of what the program did to its folders: nothing promised is missing in any.

`tests/crash_states/model.py` says what may be left, on file systems with a journal and without. The long one of these
is `python -m benchmarks.crash_states`, see `make soak`.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from main import main
from tests.conftest import trained_run
from tests.crash_states.disk import ROOT, Disk, Recording, Step
from tests.crash_states.model import Counts, Model, contents_after_a_crash, states
from tests.crash_states.mutants import Fate, Original, mutants_of
from tests.crash_states.promises import Labels, Promises, is_read, tidings_of
from tests.crash_states.recorded import Work, record
from tests.crash_states.scenarios import SCENARIOS, training, warm_up
from tests.crash_states.trying import own_folder, try_states, went_on
from tests.system_calls.recorder import Fault, trace, why_not_here
from utils import streamed_file

_MEMORY = Path("/dev/shm")
FILE, OTHER, FOLDER = 1, 2, 3


def seen(model: Model, *steps: Step, before: dict[tuple[int, str], int] | None = None) -> list[dict[str, bytes | None]]:
    """Return what may be there after a crash, at the end, of a disk that had `before`: paths and contents."""
    disk = Disk(before or {}, {OTHER: b"old"}, {}, {ROOT, FOLDER})
    recording = Recording(disk, steps)
    found = states(recording, model, is_read, Counts(), begin=len(steps))
    shown = [{path: s.disk.contents.get(inode) for path, inode in s.disk.paths().items()} for s in found]
    return [one for number, one in enumerate(shown) if one not in shown[:number]]


CREATE = Step("create", (((ROOT, "a"), FILE),))
WRITE = Step("write", inode=FILE, data=b"new")
SYNC_FILE, SYNC_FOLDER = Step("fsync", synced=FILE), Step("fsync", synced=ROOT)
RENAME = Step("rename", (((ROOT, "b"), FILE), ((ROOT, "a"), None)))
NOTHING: dict[str, bytes | None] = {}


def test_without_a_journal_each_name_is_for_itself() -> None:
    """A rename may leave both names, or none, of a file whose name is not durable; fsync of the file helps no name."""
    found = seen(Model.UNJOURNALLED, CREATE, WRITE, SYNC_FILE, RENAME)
    assert all(one in found for one in (NOTHING, {"a": b"new"}, {"b": b"new"}, {"a": b"new", "b": b"new"}))
    assert len(found) == 4


def test_with_a_journal_names_come_in_order_and_a_synced_file_has_its_name() -> None:
    assert seen(Model.ORDERED, CREATE, WRITE, SYNC_FILE, RENAME) == [{"a": b"new"}, {"b": b"new"}]


def test_after_the_fsync_of_the_folder_there_is_one_state() -> None:
    for model in Model:
        assert seen(model, CREATE, WRITE, SYNC_FILE, RENAME, SYNC_FOLDER) == [{"b": b"new"}]


@pytest.mark.parametrize("model", Model)
def test_content_that_was_not_synced_may_be_missing_behind_a_name_that_is_there(model: Model) -> None:
    found = [one["b"] for one in seen(model, CREATE, WRITE, RENAME, SYNC_FOLDER)]
    zeros = [b"\0\0\0"] if model is not Model.ORDERED else []
    assert all(content in found for content in [b"", b"new", *zeros])
    assert (b"\0\0\0" in found) is (model is not Model.ORDERED)


def test_a_file_that_moves_between_folders_may_be_in_neither_without_a_journal() -> None:
    move = Step("rename", (((FOLDER, "a"), OTHER), ((ROOT, "a"), None)))
    before = {(ROOT, "a"): OTHER, (ROOT, "folder"): FOLDER}
    assert {"folder": None} in seen(Model.UNJOURNALLED, move, before=before)
    assert {"folder": None} not in seen(Model.ORDERED, move, before=before)


def test_an_overwritten_block_is_the_old_or_the_new_one_and_sectors_are_whole() -> None:
    old, new = b"o" * 8192, b"n" * 8192
    found = contents_after_a_crash(old, [Step("write", inode=FILE, data=new)], Model.ORDERED)
    assert set(found) == {old, new, new[:4096] + old[4096:], old[:4096] + new[4096:]}
    torn = contents_after_a_crash(b"", [Step("write", inode=FILE, data=new)], Model.WRITEBACK)
    assert new[: 4096 + 512] + bytes(4096 - 512) in torn and bytes(4096) + new[4096:] in torn


needs_tracing = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "it can be traced here")


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def warm(memory: Path, corpus: Path) -> Path:
    """The corpus, once this process has imported all that its forks will need."""
    (memory / "warm").mkdir()
    warm_up(memory / "warm", corpus)
    return corpus


@needs_tracing
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_crash_loses_what_was_promised_and_the_next_start_goes_on_to_the_same_bits(
    name: str, warm: Path, memory: Path
) -> None:
    """Without a journal, which allows all that a journal does. Of the states one is gone on from."""
    folder, scenario = memory / "run", SCENARIOS[name]
    folder.mkdir()
    try:
        recording = scenario.recorded(folder, warm)
        tried = try_states(
            recording, scenario, warm, memory / "scratch", [Model.UNJOURNALLED], keep=lambda number: number == 33
        )
        assert tried.bad == []
        assert tried.counts.tried == tried.counts.legal and len(tried.seen) > 60
        (state,) = tried.sample
        assert went_on(state, scenario, warm, folder, own_folder(recording), memory / "again") == []
    finally:
        shutil.rmtree(folder)


@needs_tracing
@pytest.mark.parametrize(
    "faults", [[], [Fault("pwrite64", r"\.pth", occurrence=3, error=errno.EINVAL)]], ids=["", "refused"]
)
def test_no_crash_loses_what_was_promised_where_files_are_large(
    faults: list[Fault], warm: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written with O_DIRECT by a thread of its own, or through the page cache from where that is refused."""
    monkeypatch.setattr(streamed_file, "BUFFER_BYTES", 4096)
    folder, scenario = memory / "run", training(1)
    folder.mkdir()
    try:
        recording = record(folder, scenario.work(scenario.command, warm), faults=faults)
        writes = Counter(step.thread for step in recording.steps if step.call.startswith("pwrite64"))
        assert len(writes) >= 3 and writes.total() >= 9, "each file has a thread"
        tried = try_states(recording, scenario, warm, memory / "scratch", [Model.UNJOURNALLED], most=64)
        assert tried.bad == [] and len(tried.seen) > 30
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("other", "is_made_up_for"),
    [
        ([], False),
        ([Step("fsync", synced=FOLDER, thread=2)], True),
        ([Step("fsync", synced=FILE, thread=2)], False),
        ([Step("write told", told=b"{}", thread=1), Step("fsync", synced=FOLDER, thread=2)], False),
    ],
    ids=["nobody", "the folder", "something else", "too late"],
)
def test_a_sync_that_is_left_out_is_made_up_for_by_one_of_another_thread_that_comes_in_time(
    other: list[Step], is_made_up_for: bool
) -> None:
    steps = (*(Step("fsync", synced=FOLDER, thread=1), *other), Step("write told", told=b"{}", thread=1))
    first = next(mutants_of(Recording(Disk({}, {}, {}, {ROOT, FOLDER}), steps)))
    assert (first.what, first.is_made_up_for) == ("without fsync", is_made_up_for)


@needs_tracing
@pytest.mark.parametrize(
    ("name", "least"), [("in the foreground", 80), ("a new run moves the old one aside", 80)], ids=["save", "move"]
)
def test_each_sync_rename_and_link_is_needed_where_it_is(name: str, least: int, warm: Path, memory: Path) -> None:
    """Without one of them, or with one done later, a crash would lose something; or it is proved that none could."""
    folder = memory / "run"
    folder.mkdir()
    try:
        recording = SCENARIOS[name].recorded(folder, warm)
    finally:
        shutil.rmtree(folder)
    original = Original(recording, Labels(memory / "labels" / "file.pth"))
    fates = {mutant.what: original.fate_of(mutant) for mutant in mutants_of(recording)}
    assert [what for what, fate in fates.items() if fate is Fate.SURVIVED] == []
    assert sum(fate is Fate.CAUGHT for fate in fates.values()) >= least


@pytest.fixture(scope="module")
def detector(warm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("detector"), warm, num_epochs=1) / "checkpoint_epoch_1.pth"


@needs_tracing
@pytest.mark.parametrize("verb", ["--eval", "--export"])
def test_a_crash_leaves_whole_scores_and_exports_or_none_and_never_loses_earlier_scores(
    verb: str, detector: Path, warm: Path, memory: Path
) -> None:
    protocols, folder = warm / "ASVspoof2019_LA_cm_protocols", memory / "run"
    typed = {
        "--export": ["checkpoint", "--export_path", "whole.pth"],
        "--eval": ["--eval_output", "scores"],
    }

    def work(part: str) -> Work:
        data = ["--database_path", str(warm), "--protocols_path", str(protocols / f"ASVspoof2019.LA.cm.{part}.txt")]
        arguments = [verb, *typed[verb], "--model_path", str(detector), *(data if verb == "--eval" else ())]
        return lambda: main([*arguments, *(("--batch_size", "4") if verb == "--eval" else ())])

    folder.mkdir()
    try:
        if verb == "--eval":
            assert trace(work("dev.trl"), [], cwd=folder).exit_code == 0
        recording = record(folder, work("train.trn"))
        labels, number = Labels(memory / "labels" / "file"), 0
        promises = Promises(recording, labels, tidings_of(recording, labels))
        for number, state in enumerate(states(recording, Model.UNJOURNALLED, is_read, Counts())):  # noqa: B007
            promises.advance_to(state.number)
            assert list(promises.broken_by(state)) == [], recording.steps[state.number - 1].call
            held = {state.disk.contents.get(inode, b"") for inode in state.disk.paths().values()}
            earlier = recording.before.find("scores")
            assert earlier is None or recording.before.contents[earlier] in held
        assert number > (100 if verb == "--eval" else 3)
    finally:
        shutil.rmtree(folder)
