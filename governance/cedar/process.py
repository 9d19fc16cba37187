"""Runs Cedar in a child process with limits on time and memory (`governance.cedar.worker`).

Cedar parses and evaluates in native code. Whatever a text does to that code, it ends the child, and
the caller gets an answer that refuses. An answer of another form than the worker's ends the child
as well: a text may have taken it over. Two children at most serve all threads of a process, so that
one slow text does not delay all others. A child is started if none is idle, and ends with its
parent. What a thread's questions took is counted for it (`seconds_of_thread`).
"""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

from governance.errors import DocumentFault
from keys.errors import reason_of
from protocols.wire.encoding import check_json

WORKER = Path(__file__).with_name("worker.py")
MAX_SECONDS = 20.0
"""How long one answer may take. It takes milliseconds, and the first one half a second."""
MAX_ANSWER = 4 * 1024 * 1024
END_SECONDS = 0.5
MOST_CHILDREN = 2
PolicyName = Annotated[str, StringConstraints(pattern=r"^policy[0-9]{1,6}$")]
"""Cedar's name for a policy, by its position in the text."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CheckedPolicy(_Answer):
    """The effect and the annotations of one policy."""

    effect: Literal["permit", "forbid"]
    annotations: dict[str, str | None]


class CheckedText(_Answer):
    """The policies of a text, what the schema does not allow in them, or why there are none."""

    policies: dict[PolicyName, CheckedPolicy] = {}
    errors: list[tuple[str, str]] = []
    fault: str = ""


class CedarDecision(_Answer):
    """Cedar's decision, the policies that determined it, and the errors on the way."""

    decision: Literal["Allow", "Deny", "NoDecision"]
    reasons: list[PolicyName]
    errors: list[str]


AnyAnswer = TypeVar("AnyAnswer", bound=_Answer)
_used = threading.local()


def seconds_of_thread() -> float:
    """Return how long children have worked for this thread, without its waits for an idle one."""
    seconds: float = getattr(_used, "seconds", 0.0)
    return seconds


class CedarProcess:
    """The child processes. Thread-safe."""

    def __init__(self, schema: str, worker: Path = WORKER, seconds: float = MAX_SECONDS) -> None:
        """`worker` is the program; `seconds` the longest time for an answer."""
        self._schema, self._worker, self._seconds = schema, worker, seconds
        self._places = threading.BoundedSemaphore(MOST_CHILDREN)
        self._idle: list[_Child] = []

    def check(self, text: str) -> CheckedText:
        """Return the policies of a text. Raises DocumentFault if a child gives no answer."""
        return self._ask(CheckedText, {"method": "check", "text": text})

    def decide(self, text: str, request: Mapping[str, Any]) -> CedarDecision:
        """Return the decision about a request. Raises DocumentFault if there is no answer."""
        return self._ask(CedarDecision, {"method": "decide", "text": text, "request": request})

    def _ask(self, form: type[AnyAnswer], question: Mapping[str, Any]) -> AnyAnswer:
        with self._places:
            child = self._ready_child()
            with _counted(), _faults_of(child):
                answer = form.model_validate_json(child.ask(question))
            self._idle.append(child)
            return answer

    def close(self) -> None:
        """End the idle children; the next question starts another one."""
        while (child := self._idle_child()) is not None:
            child.end()

    def _ready_child(self) -> "_Child":
        """Return an idle child that runs, or a new one; its start counts for nobody."""
        while (child := self._idle_child()) is not None:
            if child.runs:
                return child
            child.end()  # it ended while nobody asked: this text is not the cause
        child = self._started_child()
        with _faults_of(child):
            child.require_ready()
        return child

    def _started_child(self) -> "_Child":
        try:
            return _Child(self._worker, self._schema, self._seconds)
        except OSError as error:
            raise DocumentFault(
                "The policy cannot be used",
                why=f"Cedar's process cannot be started: {reason_of(error)}",
                fix="free memory on this machine, then try again",
            ) from None

    def _idle_child(self) -> "_Child | None":
        try:
            return self._idle.pop()
        except IndexError:
            return None


@contextmanager
def _faults_of(child: "_Child") -> Iterator[None]:
    """End a child that failed, and raise DocumentFault."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise DocumentFault(
            "The policy cannot be used",
            why=f"Cedar's process {_ending(error, child.end())}",
            fix="write the policy in a simpler way and sign it again",
        ) from None


@contextmanager
def _counted() -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    finally:
        _used.seconds = seconds_of_thread() + time.monotonic() - begun


class _Child:
    """One running worker, and the socket that is its standard input and output."""

    def __init__(self, worker: Path, schema: str, seconds: float) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(seconds)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(worker)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={},
            )
        self._lines = self._socket.makefile("rb")
        self._schema = schema

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def require_ready(self) -> None:
        """Give the child its schema, and wait until it has read it."""
        self.ask(self._schema)

    def ask(self, question: Mapping[str, Any] | str) -> bytes:
        """Return the answer as JSON. Raises OSError if there is none, ValueError if too deep."""
        self._send(question)
        line = self._lines.readline(MAX_ANSWER)
        if not line.endswith(b"\n"):
            raise ConnectionError
        return check_json(line)

    def end(self) -> int:
        """End the process and return its exit status; negative: the signal that ended it."""
        self._lines.close()
        self._socket.close()
        try:
            status: int = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        return status

    def _send(self, value: object) -> None:
        self._socket.sendall(json.dumps(value).encode() + b"\n")


def _ending(error: Exception, status: int) -> str:
    if isinstance(error, TimeoutError):
        return "took too long over it"
    if isinstance(error, ValueError):
        return "gave an answer that cannot be read"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
