"""The local RPC server: only its owner can call it, and no request breaks it."""

import contextlib
import json
import logging
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governance.runtime import local_rpc
from governance.runtime.local_rpc import LocalRpcFault, LocalRpcServer, ask
from keys.errors import KeyFault
from tests.support.examples import examples
from tests.support.waiting import wait_until

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def answer(method: str, params: Mapping[str, Any]) -> Any:
    if method == "echo":
        return dict(params)
    if method == "no":
        raise KeyFault("It is locked", why="the key is away", fix="bring it")
    if method == "bug":
        raise RuntimeError("secret of the daemon")
    if method == "unsayable":
        return object()
    raise LocalRpcFault(f"There is no {method}")


@pytest.fixture
def path() -> Iterator[Path]:
    # The folder of pytest may have too long a name for a socket.
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run" / "x.sock"


@pytest.fixture
def rpc_server(path: Path) -> Iterator[LocalRpcServer]:
    opened = LocalRpcServer(path, answer)
    yield opened
    opened.close()


def send_raw(path: Path, line: bytes) -> bytes:
    """Send raw bytes and return all bytes of the reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.settimeout(10)
        raw.connect(os.fspath(path))
        with contextlib.suppress(ConnectionError):
            raw.sendall(line)
            raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            return b"".join(iter(lambda: raw.recv(65536), b""))
    return b""


@pytest.mark.usefixtures("rpc_server")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(40))
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda n: n != "seconds"), JSON))
def test_a_request_returns_its_answer_unchanged(path: Path, params: dict[str, Any]) -> None:
    assert ask(path, "echo", **params) == params


@pytest.mark.usefixtures("rpc_server")
def test_a_refusal_arrives_with_what_why_and_fix(path: Path) -> None:
    with pytest.raises(LocalRpcFault) as caught:
        ask(path, "no")
    refusal = caught.value
    assert (refusal.what, refusal.why, refusal.fix) == (
        "It is locked",
        "the key is away",
        "bring it",
    )


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[1]\n",
        b"1\n",
        b"{}\n",
        b'{"error": 1}\n',
        b'{"error": {"what": "It is locked"}}\n',
        b'{"ok": ' + b"[" * 100_000 + b"\n",
        b"\xff\n",
    ],
)
def test_what_is_no_answer_of_a_daemon_is_a_plain_fault(path: Path, line: bytes) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(os.fspath(path))
        listening.listen()
        daemon = threading.Thread(target=answer_once, args=(listening, line))
        daemon.start()
        with pytest.raises(LocalRpcFault, match="cannot be read"):
            ask(path, "status")
        daemon.join()


def answer_once(listening: socket.socket, line: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.makefile("rb").readline()
        connection.sendall(line)


@pytest.mark.usefixtures("rpc_server")
def test_an_unknown_method_is_refused(path: Path) -> None:
    with pytest.raises(LocalRpcFault, match="There is no nothing"):
        ask(path, "nothing")


def test_only_the_owner_may_enter_the_folder_or_open_the_socket(
    rpc_server: LocalRpcServer, path: Path
) -> None:
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(path.stat().st_mode)


def test_a_wide_umask_opens_nothing(path: Path) -> None:
    old = os.umask(0)
    try:
        opened = LocalRpcServer(path, answer)
        test_only_the_owner_may_enter_the_folder_or_open_the_socket(opened, path)
        opened.close()
    finally:
        os.umask(old)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_folder_open_to_others_is_refused(path: Path, mode: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(mode)
    with pytest.raises(LocalRpcFault, match="open to other users") as caught:
        LocalRpcServer(path, answer)
    assert caught.value.fix == f"chmod 700 {path.parent}"
    assert not path.exists()


def test_another_user_is_refused(
    rpc_server: LocalRpcServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    rpc_server._server.handler = lambda method, params: requests.append(method)
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    assert send_raw(path, b'{"method":"echo","params":{}}\n') == b""
    with pytest.raises(LocalRpcFault, match="did not finish its answer"):
        ask(path, "echo")
    assert not requests


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_refused(rpc_server: LocalRpcServer, path: Path) -> None:
    """Even if every file system permission is open to it."""
    for directory in (path.parent.parent, path.parent, path):
        directory.chmod(0o777)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            status = 0 if send_raw(path, b'{"method":"echo","params":{}}\n') == b"" else 2
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0


UNREADABLE = {
    "no JSON": b"hello\n",
    "no object": b"[]\n",
    "a string": b'"method"\n',
    "null": b"null\n",
    "no method": b'{"params":{}}\n',
    "no params": b'{"method":"echo"}\n',
    "params of another kind": b'{"method":"echo","params":[1]}\n',
    "not UTF-8": b'{"method":"\xff","params":{}}\n',
    "empty": b"\n",
    "deep": b"[" * 100_000 + b"\n",
    "NaN then junk": b'{"method":NaN} junk\n',
    "a huge number": b'{"method":' + b"9" * 5000 + b',"params":{}}\n',
}


@pytest.mark.usefixtures("rpc_server")
@pytest.mark.parametrize("line", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_request_gets_a_clear_error(path: Path, line: bytes) -> None:
    error = json.loads(send_raw(path, line))["error"]
    assert error["what"]
    assert set(error) == {"what", "why", "fix"}
    assert ask(path, "echo", still="there") == {"still": "there"}


@pytest.mark.usefixtures("rpc_server")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60))
@given(st.binary(max_size=100).filter(lambda line: b"\n" not in line))
def test_arbitrary_lines_do_not_break_the_server(path: Path, line: bytes) -> None:
    answered = send_raw(path, line + b"\n")
    assert "error" in json.loads(answered)


@pytest.mark.usefixtures("rpc_server")
def test_an_unfinished_line_gets_no_answer(path: Path) -> None:
    assert send_raw(path, b'{"method":"echo","params":{}}') == b""


@pytest.mark.usefixtures("rpc_server")
def test_a_line_over_the_limit_is_not_read_to_its_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_rpc, "MAX_LINE", 1000)
    assert send_raw(path, b'{"method":"echo","params":{"x":"' + b"a" * 2_000_000) == b""
    with pytest.raises(LocalRpcFault, match="did not finish its answer"):
        ask(path, "echo", x="a" * 2_000_000)
    monkeypatch.undo()
    assert ask(path, "echo", x=1) == {"x": 1}


def leave(path: Path, request: bytes) -> None:
    """Send a request, and disconnect after the first byte of the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.connect(os.fspath(path))
        raw.sendall(request)
        raw.recv(1)


def test_a_caller_that_disconnects_is_no_error(
    rpc_server: LocalRpcServer, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pratique.desk")
    rpc_server._server.handler = lambda *_: "a" * 5_000_000
    leave(path, b'{"method":"echo","params":{}}\n')
    wait_until(lambda: caplog.records)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "went away" in caplog.text


@pytest.mark.usefixtures("rpc_server")
@pytest.mark.parametrize("method", ["bug", "unsayable"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_internal_error_reveals_nothing_and_ends_nothing(
    path: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LocalRpcFault, match="did not finish its answer") as caught:
        ask(path, method)
    assert "secret" not in str(caught.value)
    assert caught.value.fix
    assert ask(path, "echo", x=1) == {"x": 1}


def test_a_missing_socket_gives_a_clear_error(path: Path) -> None:
    with pytest.raises(LocalRpcFault) as caught:
        ask(path, "status")
    assert "Nothing answers" in caught.value.what
    assert "not running" in caught.value.why
    assert "up" in caught.value.fix


def test_a_stale_socket_of_a_daemon_that_died_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(os.fspath(path))
    dead.close()
    with pytest.raises(LocalRpcFault, match="Nothing answers"):
        ask(path, "echo")
    opened = LocalRpcServer(path, answer)
    assert ask(path, "echo") == {}
    opened.close()


def test_a_closed_server_leaves_nothing_behind(path: Path) -> None:
    opened = LocalRpcServer(path, answer)
    opened.close()
    assert not path.exists()
    with pytest.raises(LocalRpcFault):
        ask(path, "echo")


def test_a_path_too_long_for_the_system_gives_a_clear_error(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120) / "x.sock"
    for act in (lambda: ask(long, "status"), lambda: LocalRpcServer(long, answer)):
        with pytest.raises(LocalRpcFault, match="too long") as caught:
            act()
        assert "shorter" in caught.value.fix
    assert not long.parent.exists()


def test_the_longest_path_that_the_system_allows_is_accepted(path: Path) -> None:
    stem = path.parent / "x"
    longest = path.parent / ("x" * (local_rpc.MAX_PATH - len(os.fsencode(stem)) + 1))
    opened = LocalRpcServer(longest, answer)
    assert ask(longest, "echo", x=1) == {"x": 1}
    opened.close()


@contextlib.contextmanager
def impostor(path: Path, act: Callable[[socket.socket], object]) -> Iterator[None]:
    """A program at the socket that is not a local RPC server."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(os.fspath(path))
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                act(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)


def test_a_call_to_a_daemon_that_never_answers_ends(path: Path) -> None:
    done = threading.Event()
    with impostor(path, lambda _: bool(done.wait(10))):
        with pytest.raises(LocalRpcFault, match="did not answer within 0 seconds"):
            ask(path, "status", 0.2)
        done.set()


def test_a_daemon_that_disconnects_during_a_request_gives_a_clear_error(path: Path) -> None:
    with (
        impostor(path, lambda _: None),
        pytest.raises(LocalRpcFault, match="did not finish its answer"),
    ):
        ask(path, "echo", x="a" * 5_000_000)


def test_many_at_once_are_all_answered(rpc_server: LocalRpcServer, path: Path) -> None:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(ask(path, "echo", n=n)["n"]))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == list(range(20))
