"""Runs Cedar in a child process with limits on time and memory (`governance.cedar.worker`).

Cedar parses and evaluates in native code. Whatever a text does to that code, it ends the child, and
the caller gets an answer that refuses. An answer of another form than the worker's ends the child
as well: a text may have taken it over. One child serves all threads of a process. It is started at
the first question, again after it has ended, and ends with its parent.
"""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

from governance.errors import DocumentFault
from protocols.wire.encoding import check_json

WORKER = Path(__file__).with_name("worker.py")
MAX_SECONDS = 20.0
"""How long one answer may take. It takes milliseconds, and the first one half a second."""
MAX_ANSWER = 4 * 1024 * 1024
END_SECONDS = 0.5
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


class CedarProcess:
    """The child process. Thread-safe."""

    def __init__(self, schema: str, worker: Path = WORKER, seconds: float = MAX_SECONDS) -> None:
        """`worker` is the program; `seconds` the longest time for an answer."""
        self._schema, self._worker, self._seconds = schema, worker, seconds
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def check(self, text: str) -> CheckedText:
        """Return the policies of a text. Raises DocumentFault if the child gives no answer."""
        return self._ask(CheckedText, {"method": "check", "text": text})

    def decide(self, text: str, request: Mapping[str, Any]) -> CedarDecision:
        """Return the decision about a request. Raises DocumentFault if there is no answer."""
        return self._ask(CedarDecision, {"method": "decide", "text": text, "request": request})

    def _ask(self, form: type[AnyAnswer], question: Mapping[str, Any]) -> AnyAnswer:
        with self._lock:
            if self._child is not None and not self._child.runs:
                self._end()  # it ended while nobody asked: this text is not the cause
            try:
                if self._child is None:
                    self._child = _Child(self._worker, self._schema, self._seconds)
                return form.model_validate_json(self._child.ask(question))
            except (OSError, ValueError) as error:
                raise DocumentFault(
                    "The policy cannot be used",
                    why=f"Cedar's process {_ending(error, self._end())}",
                    fix="write the policy in a simpler way and sign it again",
                ) from None

    def close(self) -> None:
        """End the child; the next question starts another one."""
        with self._lock:
            self._end()

    def _end(self) -> int:
        """End the child, if there is one, and return its exit status."""
        child, self._child = self._child, None
        return 0 if child is None else child.end()


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
        self._send(schema)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: Mapping[str, Any]) -> bytes:
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
