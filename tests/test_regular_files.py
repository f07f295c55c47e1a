"""Only regular files are opened; whatever else has the name is named, at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.regular_files import NotARegularFileError, is_regular, open_regular, read_regular


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


KINDS: list[tuple[Callable[[Path], object], str]] = [
    (Path.mkdir, "it is a folder"),
    (os.mkfifo, "it is a named pipe"),
    (make_socket, "it is a socket"),
    (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
]


@pytest.mark.parametrize(("make", "said"), KINDS, ids=[said for _, said in KINDS])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_what_is_no_file_is_named(
    make: Callable[[Path], object], said: str, through_a_link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    path = Path("x.pth")
    make(path)
    if through_a_link:
        Path("link.pth").symlink_to(path)
        path = Path("link.pth")
    with pytest.raises(NotARegularFileError, match=said):
        open_regular(path)
    assert not is_regular(path)


def test_a_pipe_that_takes_the_name_in_between_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pipe = tmp_path / "x.pth", tmp_path / "pipe"
    path.write_bytes(b"content")
    os.mkfifo(pipe)
    found = path.stat()
    pipe.replace(path)
    monkeypatch.setattr(Path, "stat", lambda _: found)
    with pytest.raises(NotARegularFileError, match="it is a named pipe"):
        open_regular(path)


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    path, link = tmp_path / "x.pth", tmp_path / "link.pth"
    path.write_bytes(b"content")
    link.symlink_to(path)
    assert read_regular(path) == read_regular(link) == b"content"
    assert is_regular(link)
    assert not is_regular(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")
