"""How a process was started, read from its environment."""

from __future__ import annotations

import pytest

from main import main
from utils.errors import EXIT_USAGE, UserError
from utils.launch import Launch, find_launch

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "a17", "MASTER_PORT": "29500"}
ON_TWO_NODES = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
RESTARTED = {"TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "gpu[03-04,09]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
}
TABLE = [
    ("nothing said", {}, Launch()),
    ("a platform's number of machines, one", {"WORLD_SIZE": "1"}, Launch()),
    (
        "torchrun, one process",
        {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1", **RESTARTED},
        Launch(0, 1, 0, 1, "", 0, 1, 3),
    ),
    ("another launcher with torchrun's words", TORCHRUN, Launch(3, 4, 3, 4, "a17", 29500)),
    ("torchrun", TORCHRUN | ON_TWO_NODES, Launch(3, 4, 1, 2, "a17", 29500, has_store=True)),
    ("torchrun, again", TORCHRUN | ON_TWO_NODES | RESTARTED, Launch(3, 4, 1, 2, "a17", 29500, 1, 3, has_store=True)),
    ("srun", SRUN, Launch(3, 5, 1, 2, "gpu03", 12112)),
    ("srun, told where to meet", {**SRUN, "MASTER_ADDR": "b", "MASTER_PORT": "5"}, Launch(3, 5, 1, 2, "b", 5)),
    ("torchrun, started by srun", SRUN | TORCHRUN | ON_TWO_NODES, Launch(3, 4, 1, 2, "a17", 29500, has_store=True)),
    ("a batch script, which is no step", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Launch()),
    ("srun, one process", {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, Launch()),
]
REFUSED = [
    ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4 in the environment, and RANK, MASTER_ADDR, MASTER_PORT are not there"),
    ({"RANK": "0"}, "RANK is 0 in the environment, and WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not there"),
    ({**TORCHRUN, "RANK": "4"}, "RANK is 4 and WORLD_SIZE 4"),
    ({**TORCHRUN, "MASTER_PORT": "http"}, "MASTER_PORT in the environment must be a whole number up to 65535, found '"),
    ({**TORCHRUN, "MASTER_PORT": "99999"}, "MASTER_PORT in the environment must be a whole number up to 65535, found"),
    ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID or SLURM_STEP_NODELIST is not"),
]


@pytest.mark.parametrize(("why", "environment", "found"), TABLE, ids=[row[0] for row in TABLE])
def test_the_environment_says_how_a_process_was_started(why: str, environment: dict[str, str], found: Launch) -> None:
    assert find_launch(environment) == found, why


@pytest.mark.parametrize(("environment", "words"), REFUSED)
def test_an_environment_that_contradicts_itself_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(UserError) as refused:
        find_launch(environment)
    assert words in str(refused.value)
    assert refused.value.exit_code == EXIT_USAGE


def at_work(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *typed: str) -> int:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return main(typed)


def test_half_an_environment_of_torchrun_is_one_sentence(
    workplace: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_work(monkeypatch, {"WORLD_SIZE": "2"}) == EXIT_USAGE
    assert "start several processes by torchrun or srun, or unset WORLD_SIZE" in capsys.readouterr().err


def test_what_processes_do_not_share_the_first_one_does(
    workplace: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_work(monkeypatch, TORCHRUN | {"RANK": "0"}, "--list_checkpoints") == 0
    assert "No checkpoints" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as silenced:
        silenced.setattr("main.silence", lambda: None)
        assert at_work(monkeypatch, TORCHRUN, "--list_checkpoints") == 0
    assert capsys.readouterr().out == ""


def test_a_usage_error_is_said_once_and_not_again_when_torchrun_repeats_the_command(
    workplace: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert at_work(monkeypatch, TORCHRUN | {"RANK": "0"}, "--lr", "-1") == EXIT_USAGE
    assert "--lr must be above 0" in capsys.readouterr().err
    assert at_work(monkeypatch, RESTARTED, "--lr", "-1") == EXIT_USAGE
    assert capsys.readouterr().err == ""


def test_a_command_that_would_begin_anew_at_each_restart_is_refused(
    workplace: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}
    assert at_work(monkeypatch, one, "--fresh_start") == EXIT_USAGE
    assert "--max_restarts 3 of torchrun repeats this command" in capsys.readouterr().err
