"""A node's new keys succeed others only if the former and the new key signed that."""

from datetime import timedelta

import pytest

from governance.documents.succession import NodeSuccession, succeeding
from keys.composite import Identity
from tests.support.documents import NOW, raw_key, two_algorithm_key

KEYS = {"country": "DK", "identity_key": "x", "log_key": "y"}


def statement_of(former: Identity, new: Identity) -> NodeSuccession:
    return succeeding(former, new, KEYS, NOW + timedelta(microseconds=5))


@pytest.mark.parametrize(
    ("former", "new"),
    [
        (raw_key(1), raw_key(2)),
        (raw_key(1), two_algorithm_key(2)),
        (two_algorithm_key(1), two_algorithm_key(2)),
    ],
)
def test_both_kinds_of_keys_sign(former: Identity, new: Identity) -> None:
    statement = statement_of(former, new)
    assert statement.issued == NOW
    assert statement.is_signed(new.public.to_text(), KEYS)


def test_it_is_valid_for_these_keys_and_this_time_only() -> None:
    statement = statement_of(raw_key(1), raw_key(2))
    new = raw_key(2).public.to_text()
    assert not statement.is_signed(new, KEYS | {"log_key": "z"})
    assert not statement.is_signed(raw_key(3).public.to_text(), KEYS)
    later = statement.model_copy(update={"issued": NOW + timedelta(seconds=1)})
    assert not later.is_signed(new, KEYS)


def test_neither_signature_replaces_the_other() -> None:
    statement, new = statement_of(raw_key(1), raw_key(2)), raw_key(2).public.to_text()
    for field, other in (("by_former", statement.by_new), ("by_new", statement.by_former)):
        assert not statement.model_copy(update={field: other}).is_signed(new, KEYS)


def test_a_key_does_not_succeed_itself() -> None:
    statement = statement_of(raw_key(1), raw_key(1))
    assert not statement.is_signed(raw_key(1).public.to_text(), KEYS)
