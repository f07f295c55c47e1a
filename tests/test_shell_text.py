"""What is printed to be pasted into a shell means there what it should."""

from __future__ import annotations

import subprocess

import pytest

from training.settings.command_line import read_command
from training.settings.requests import Resume
from utils.shell_text import quoted, with_path

PATHS = [
    "models/run/version_1/checkpoint_epoch_1.pth",
    "my models/it's mine/x.pth",
    "-starts-like-a-flag/x.pth",
    "--fresh_start",
    "$(touch pwned)/`id`;x&.pth",
    'a"b\\c.pth',
    "a line\nand another\x1b[2J.pth",
    "übung/录音.pth",
    "~/x.pth",
    "*.pth",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_the_same_after_the_shell_and_the_command_line_have_read_it(path: str) -> None:
    line = f"python main.py --resume {with_path('--model_path', path)}"
    assert line.isprintable()
    command = ["bash", "-c", f"python() {{ printf '%s\\0' \"$@\"; }}; {line}"]
    words = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")[1:-1]
    asked = read_command(words)
    assert isinstance(asked, Resume)
    assert str(asked.model_path) == path


def test_what_needs_no_quotes_has_none() -> None:
    assert quoted("models/run_1/x-2.pth") == "models/run_1/x-2.pth"
