"""Cedar's process: what ends it, or takes too long, is a fault of that text alone."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from governance.cedar.process import MOST_CHILDREN, WORKER, CedarProcess, seconds_of_thread
from governance.cedar.texts import BASE_POLICY, SCHEMA
from governance.errors import DocumentFault
from tests.support.waiting import wait_until

FORBID = '@id("a") forbid (principal, action, resource) when {{ {} }};'
DEEP = FORBID.format("(" * 5_000 + "true" + ")" * 5_000)
LONG_CHAIN = FORBID.format(" && ".join(["true"] * 1_000))


@pytest.fixture
def process() -> Iterator[CedarProcess]:
    cedar = CedarProcess(SCHEMA)
    yield cedar
    cedar.close()


def pid(process: CedarProcess) -> int:
    return int(process._idle[-1]._process.pid)


def test_a_text_that_overflows_the_stack_ends_the_child_and_not_the_caller(
    process: CedarProcess,
) -> None:
    with pytest.raises(DocumentFault, match=r"was ended by SIG(SEGV|ABRT|BUS)"):
        process.check(DEEP)
    assert process.check(BASE_POLICY).errors == []


def test_a_chain_too_long_for_json_is_a_fault(process: CedarProcess) -> None:
    assert process.check(LONG_CHAIN).fault == "it is nested too deeply"


def test_a_text_that_takes_too_long_is_a_fault(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(60)\n")
    process = CedarProcess(SCHEMA, slow, seconds=0.2)
    with pytest.raises(DocumentFault, match="took too long"):
        process.check(BASE_POLICY)


def test_a_text_that_needs_too_much_memory_is_a_fault(tmp_path: Path) -> None:
    source = WORKER.read_text()
    greedy = tmp_path / "greedy.py"
    greedy.write_text(source.replace("answer = read(text)", 'answer = {"fault": "x" * (1 << 31)}'))
    process = CedarProcess(SCHEMA, greedy)
    with pytest.raises(DocumentFault, match="ended with status 1"):
        process.check(BASE_POLICY)


def test_a_child_that_was_killed_while_idle_is_replaced_unnoticed(process: CedarProcess) -> None:
    process.check(BASE_POLICY)
    first = pid(process)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert process.check(BASE_POLICY).errors == []
    assert pid(process) != first


def test_threads_share_two_children_and_get_their_own_answers(process: CedarProcess) -> None:
    texts = [f'@id("{n}") forbid (principal, action, resource);' for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(process.check, texts))
    ids = [answer.policies["policy0"].annotations["id"] for answer in answers]
    assert ids == [str(n) for n in range(40)]
    assert len(process._idle) <= MOST_CHILDREN


def test_a_slow_text_delays_no_other_and_counts_for_its_thread_alone(tmp_path: Path) -> None:
    slow, started = tmp_path / "slow.py", tmp_path / "started"
    waits = (
        f"""if "slow" in text:\n        open({str(started)!r}, "w").close()\n"""
        """        __import__("time").sleep(60)\n    try:"""
    )
    slow.write_text(WORKER.read_text().replace("try:", waits, 1))
    process = CedarProcess(SCHEMA, slow, seconds=1.0)

    def ask(text: str) -> float:
        before = seconds_of_thread()
        with suppress(DocumentFault):
            process.check(text)
        return seconds_of_thread() - before

    with ThreadPoolExecutor(1) as pool:
        slow_one = pool.submit(ask, "slow")
        wait_until(started.exists)
        other = ask(BASE_POLICY)
        assert not slow_one.done()
        assert slow_one.result() >= 1.0 > other > 0.0
    process.close()


def test_the_child_gets_no_environment(process: CedarProcess) -> None:
    process.check(BASE_POLICY)
    environment = Path(f"/proc/{pid(process)}/environ").read_bytes()
    assert not [line for line in environment.split(b"\0") if line and b"LC_CTYPE" not in line]


def test_the_child_ends_with_its_caller(process: CedarProcess) -> None:
    process.check(BASE_POLICY)
    assert process._idle.pop().end() == 0


@pytest.mark.parametrize(
    "answer",
    [
        "no json",
        "[]",
        "{}",
        '{"decision": "Maybe", "reasons": [], "errors": []}',
        '{"decision": "Allow", "reasons": ["first"], "errors": []}',
        '{"decision": "Allow", "reasons": [], "errors": [], "more": 1}',
        "[" * 100_000,
    ],
)
def test_an_answer_of_another_form_ends_the_child(tmp_path: Path, answer: str) -> None:
    """A text that has taken the child over must not answer for other texts."""
    taken = tmp_path / "taken.py"
    taken.write_text(f"import sys\nfor _ in sys.stdin:\n    print({answer!r}, flush=True)\n")
    process = CedarProcess(SCHEMA, taken)
    with pytest.raises(DocumentFault, match="gave an answer that cannot be read"):
        process.decide(BASE_POLICY, {})
    assert process._idle == []
