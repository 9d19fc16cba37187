"""The secret of a log's key says whether heads are signed; the key itself never changes."""

from pathlib import Path

from governance.audit.log_key import LogKey
from keys.identity import SigningKey
from tests.support.keystore import fast_store


def test_a_new_key_signs_heads_and_a_former_one_does_once_noted(tmp_path: Path) -> None:
    store = fast_store(tmp_path / "keys")
    LogKey.create(store, "log")
    assert LogKey.load(store, "log").signs_heads
    key = SigningKey.generate()
    store.put("log", key.to_bytes())
    former = LogKey.load(store, "log")
    assert not former.signs_heads
    former.note_signed(store, "log")
    noted = LogKey.load(store, "log")
    assert noted.signs_heads
    assert noted.key.public == former.key.public == key.public
