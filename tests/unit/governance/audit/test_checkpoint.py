import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.audit.checkpoint import (
    Checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from governance.audit.note import NoteKey, sign_note
from governance.errors import LogFault
from tests.support.ledger_and_log import LOG_KEY, ORIGIN

HEAD = Checkpoint(ORIGIN, 42, bytes(range(32)))
OWN = NoteKey(ORIGIN, LOG_KEY.public)
ROOT = base64.b64encode(HEAD.root).decode()


def test_a_checkpoint_is_three_lines() -> None:
    assert HEAD.to_text() == f"{ORIGIN}\n42\n{ROOT}\n"


@given(
    st.from_regex(r"[a-z][a-z0-9./-]{0,40}", fullmatch=True),
    st.integers(0, 10**15),
    st.binary(min_size=32, max_size=32),
)
def test_checkpoints_round_trip(origin: str, size: int, root: bytes) -> None:
    head = Checkpoint(origin, size, root)
    assert parse_checkpoint(head.to_text()) == head
    note = sign_checkpoint(head, LOG_KEY)
    assert open_checkpoint(note, NoteKey(origin, LOG_KEY.public)) == head


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{ORIGIN}\n42\n{ROOT}",
        f"{ORIGIN}\n042\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n٤٢\n{ROOT}\n",
        f"{ORIGIN}\n99999999999999999\n{ROOT}\n",
        f"{ORIGIN}\n42\n{ROOT}\nextension\n",
        f"\n42\n{ROOT}\n",
        f"two words\n42\n{ROOT}\n",
        f"{ORIGIN}\n42\n{ROOT[:-4]}\n",
        f"{ORIGIN}\n42\n{ROOT[:-2]}9=\n",
        f"{ORIGIN}\r\n42\r\n{ROOT}\r\n",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(LogFault, match="not a checkpoint"):
        parse_checkpoint(text)


def test_every_flipped_bit_of_a_signed_checkpoint_is_refused() -> None:
    note = sign_checkpoint(HEAD, LOG_KEY)
    for position in range(len(note) * 8):
        changed = bytearray(note)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(LogFault):
            open_checkpoint(bytes(changed), OWN)


def test_a_key_signs_checkpoints_of_its_own_log_only() -> None:
    elsewhere = Checkpoint("pratique/demo/node/XB", 42, HEAD.root)
    note = sign_note(elsewhere.to_text(), ORIGIN, LOG_KEY)
    with pytest.raises(LogFault, match="another log"):
        open_checkpoint(note, OWN)
