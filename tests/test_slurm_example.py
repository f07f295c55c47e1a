"""docs/train.sbatch as the shell sees it: when it puts its job back into the queue. Slurm's commands are stand-ins."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.asking import asked_training

SCRIPT = Path(__file__).parents[1] / "docs" / "train.sbatch"


def write_command(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("exit_code", "is_requeued"), [(0, False), (143, True), (1, False), (2, False), (130, False)])
def test_the_job_is_queued_again_only_where_sigterm_stopped_the_training(
    exit_code: int, is_requeued: bool, tmp_path: Path
) -> None:
    commands = tmp_path / "commands"
    write_command(commands, "srun", f'echo "srun $*" >> said.txt; exit {exit_code}')
    write_command(commands, "scontrol", 'echo "scontrol $*" >> said.txt')
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "17",
        "SLURM_CPUS_PER_TASK": "8",
        "LA_FOLDER": "/data/my LA",
    }
    ended = subprocess.run(["bash", str(SCRIPT)], env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (exit_code, "")
    said = (tmp_path / "said.txt").read_text().splitlines()
    assert "main.py --database_path /data/my LA --auto_resume" in said[0]
    assert said[1:] == (["scontrol requeue 17"] if is_requeued else [])


def test_the_flags_in_the_script_exist() -> None:
    (line,) = [line for line in SCRIPT.read_text().splitlines() if line.startswith("srun")]
    words = shlex.split(line)
    command = asked_training(*words[words.index("main.py") + 1 :])
    assert command.options.comment == "xlsr"
