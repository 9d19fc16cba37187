"""A country's key rotations: what a statement proves, and what cannot be forged."""

import base64
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from governance.documents.rotation import MAX_ROTATIONS, KeyHistory, extended
from governance.errors import DocumentFault
from tests.support.documents import NOW, raw_key

FIRST, SECOND, THIRD, THIEF = (raw_key(number) for number in (100, 200, 300, 666))


def text(number: int) -> str:
    return raw_key(number).public.to_text()


def history(*numbers: int, country: str = "DK") -> KeyHistory:
    key_history = None
    for former, new in pairwise(numbers):
        key_history = extended(key_history, country, raw_key(former), raw_key(new), NOW)
    assert key_history is not None
    return key_history


def test_the_history_leads_from_each_key_to_every_later_one() -> None:
    key_history = history(100, 200, 300)
    assert key_history.keys == (text(100), text(200), text(300))
    assert key_history.newest == text(300)
    assert key_history.proves_succession(text(100), text(200))
    assert key_history.proves_succession(text(100), text(300))
    assert key_history.proves_succession(text(200), text(300))


@pytest.mark.parametrize("pair", [(200, 100), (300, 100), (100, 100), (666, 300), (100, 666)])
def test_the_history_leads_to_no_other_key(pair: tuple[int, int]) -> None:
    known, new = map(text, pair)
    assert not history(100, 200, 300).proves_succession(known, new)


def test_the_history_is_one_file() -> None:
    key_history = history(100, 200, 300)
    assert KeyHistory.from_canonical(key_history.canonical()) == key_history


def test_a_key_other_than_the_last_one_begins_a_new_history() -> None:
    key_history = extended(history(100, 200), "DK", THIRD, THIEF, NOW)
    assert key_history.keys == (text(300), text(666))


def test_only_the_newest_rotations_are_kept() -> None:
    key_history = history(*range(1, MAX_ROTATIONS + 4))
    assert len(key_history.rotations) == MAX_ROTATIONS
    assert key_history.newest == text(MAX_ROTATIONS + 3)


def forged(**changes: Any) -> dict[str, Any]:
    values = history(100, 200).model_dump(mode="json")
    values["rotations"][0] |= changes
    return values


def by(number: int) -> str:
    """Return another key's signature over its own statement."""
    other = extended(None, "DK", raw_key(number), raw_key(number + 1), NOW)
    return other.rotations[0].by_former


@pytest.mark.parametrize(
    "changes",
    [
        {"new": text(666)},
        {"former": text(666)},
        {"country": "EE"},
        {"issued": "2026-09-02T12:00:00Z"},
        {"by_former": by(666)},
        {"by_new": by(666)},
        {"by_former": base64.b64encode(bytes(64)).decode()},
    ],
)
def test_a_changed_statement_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KeyHistory.model_validate(forged(**changes))


def test_a_thief_cannot_name_a_key_of_somebody_else_as_the_next() -> None:
    """The new key signs too, so nobody can name another's key as the next one."""
    values = history(100, 200).model_dump(mode="json")
    values["rotations"][0]["by_new"] = values["rotations"][0]["by_former"]
    with pytest.raises(ValidationError, match="not signed by"):
        KeyHistory.model_validate(values)


def joined(*parts: KeyHistory, **changes: Any) -> dict[str, Any]:
    rotations = [rotation.model_dump(mode="json") for part in parts for rotation in part.rotations]
    return {"country": "DK", "rotations": rotations} | changes


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (lambda: joined(history(100, 200), history(300, 400)), "does not follow"),
        (lambda: joined(history(100, 200), history(200, 100)), "is used again"),
        (lambda: joined(history(100, 200), country="EE"), "another country"),
        (lambda: joined(rotations=[]), "at least 1"),
    ],
)
def test_a_history_has_no_gaps_and_never_returns_to_an_older_key(
    values: Callable[[], dict[str, Any]], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        KeyHistory.model_validate(values())


def test_malformed_histories_are_refused() -> None:
    with pytest.raises(DocumentFault):
        KeyHistory.from_canonical(b"{}")
