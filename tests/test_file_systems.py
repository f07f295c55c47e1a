"""What a file system lacks is found by trying; a refusal of the kernel stands for those that are not at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tracing import needs_strace, traced
from utils.file_systems import limits_of

SAY_LIMITS = (
    "import sys; from pathlib import Path; from utils.file_systems import *; print(limits_of(Path(sys.argv[1])))"
)


def limits_if(tmp_path: Path, *inject: str) -> str:
    strace = ["-o", "/dev/null", *(part for rule in inject for part in ("-e", f"inject={rule}"))]
    done = traced(strace, [sys.executable, "-c", SAY_LIMITS, str(tmp_path)], tmp_path)
    assert list(tmp_path.iterdir()) == []
    return done.stdout + done.stderr


def test_a_local_file_system_lacks_nothing_and_nothing_stays_behind(tmp_path: Path) -> None:
    assert limits_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@needs_strace
@pytest.mark.parametrize("refusal", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_no_hard_links(tmp_path: Path, refusal: str) -> None:
    assert "the best and last checkpoints are copies and take room" in limits_if(tmp_path, f"/^link:error={refusal}")


@needs_strace
@pytest.mark.parametrize("refusal", ["EINVAL", "EOPNOTSUPP", "ENOSYS"])
def test_no_fsync_of_folders(tmp_path: Path, refusal: str) -> None:
    said = limits_if(tmp_path, f"fsync:error={refusal}")
    assert "folders cannot be synced here" in said and "hard links" not in said


@needs_strace
@pytest.mark.parametrize(("call", "refusal"), [("/^link", "EIO"), ("fsync", "EIO")])
def test_a_broken_disk_is_not_taken_for_one_that_lacks_something(tmp_path: Path, call: str, refusal: str) -> None:
    assert "OSError: [Errno 5] Input/output error" in limits_if(tmp_path, f"{call}:error={refusal}")


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        limits_of(tmp_path / "gone")
