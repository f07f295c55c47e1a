"""What a shell and a report of a defect need: completion in a real bash, and the version."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from main import main
from tests.conftest import REPOSITORY
from utils.version import VERSION

# What bash does at the Tab key: it calls the function that was registered for commands without one of their own.
_PRESS_TAB = r"""
eval "$("$1" --dest=- 2> /dev/null)"
COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9 COMP_KEY=9
read -ra COMP_WORDS <<< "$2"
[[ $2 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete_global "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


def after_tab(line: str) -> set[str]:
    """Return what bash offers after `line`, typed in the repository with this Python's folder first in PATH."""
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "--norc", "-c", _PRESS_TAB, "bash", str(scripts / "activate-global-python-argcomplete"), line],
        cwd=REPOSITORY,
        env={"PATH": f"{scripts}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return {word.strip() for word in done.stdout.splitlines()}


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("python main.py --auto", {"--auto_resume"}),
        ("python main.py --fresh", {"--fresh_start"}),
        ("python main.py --load_checkpoint_type ", {"last", "best"}),
        ("python main.py --model_type aas", {"aasist", "aasist_l"}),
        ("python main.py --config configs/", {f"configs/{file.name}" for file in (REPOSITORY / "configs").iterdir()}),
    ],
)
def test_bash_completes_flags_choices_and_files(line: str, offered: set[str]) -> None:
    assert after_tab(line) == offered


def test_completion_is_not_even_imported_without_a_shell_that_asks() -> None:
    command = "import main, sys; main.main(['--resume']); print('argcomplete' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_version_names_the_program_the_commit_and_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert lines[0].startswith(f"bonafide {VERSION}")
    assert "torch " in lines[1]
