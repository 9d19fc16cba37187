"""Our executor starts one kind of app, by its path, and passes the token through a pipe."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec.executor import ExecutionSpec, Executor
from flwr.supercore.superexec.executor.types import LaunchResultStatus

from server.flower import executor
from server.flower.executor import GuardedExecutor
from server.flower.launcher import LAUNCHER, SERVER_APP, command

TOKEN = "5" * 64


def spec(kind: TaskType) -> ExecutionSpec:
    return ExecutionSpec(
        task_type=kind,
        runtime_api_address="127.0.0.1:1",
        token=TOKEN,
        insecure=False,
        root_certificates_path="/x/ca.pem",
        runtime_dependency_install=True,
        parent_pid=1,
        suppress_output=True,
        task_id=7,
    )


class Pipe:
    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def write(self, content: bytes) -> None:
        self.written += content

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Pipe]]:
    calls: list[tuple[list[str], Pipe]] = []

    def popen(words: list[str], **_: Any) -> SimpleNamespace:
        calls.append((words, Pipe()))
        return SimpleNamespace(stdin=calls[-1][1])

    monkeypatch.setattr(subprocess, "Popen", popen)
    return calls


def test_it_is_an_executor_for_flower() -> None:
    ours: Executor = GuardedExecutor(LAUNCHER)
    ours.reconcile()
    ours.close()
    kinds = set(TaskType)
    capacity = ours.get_eligible_capacity(kinds, insecure=False, root_certificates_path="x")
    assert capacity == (kinds, set())


def test_a_server_app_is_started_by_its_path_and_gets_its_token_by_a_pipe(
    started: list[tuple[list[str], Pipe]],
) -> None:
    result = GuardedExecutor(LAUNCHER).launch(spec(TaskType.SERVER_APP))
    assert result.status is LaunchResultStatus.ACCEPTED
    ((words, pipe),) = started
    assert words[: len(command(LAUNCHER, SERVER_APP))] == command(LAUNCHER, SERVER_APP)
    assert Path(words[0]).is_absolute()
    assert not [word for word in words if TOKEN in word or "install" in word]
    assert (pipe.written, pipe.closed) == (TOKEN.encode(), True)


@pytest.mark.parametrize("kind", sorted(set(TaskType) - {TaskType.SERVER_APP}))
def test_nothing_else_is_started(started: list[tuple[list[str], Pipe]], kind: TaskType) -> None:
    result = GuardedExecutor(LAUNCHER).launch(spec(kind))
    assert result.status is LaunchResultStatus.FAILED
    assert "Refused" in str(result.message)
    assert not started


def test_flower_asks_for_its_executor_by_the_name_that_is_replaced() -> None:
    runner = sys.modules["flwr.supercore.superexec.run_superexec"]
    source = Path(str(runner.__file__)).read_text(encoding="utf-8")
    assert source.count("= get_executor(") == 1
    assert "Popen" not in source


def test_the_superexec_runs_with_our_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = sys.modules["flwr.supercore.superexec.run_superexec"]
    monkeypatch.setattr(runner, "get_executor", None)
    used: list[object] = []
    monkeypatch.setattr(
        executor, "flower_superexec", lambda: used.append(runner.get_executor("subprocess"))
    )
    executor.main(LAUNCHER)
    assert isinstance(used[0], GuardedExecutor)
