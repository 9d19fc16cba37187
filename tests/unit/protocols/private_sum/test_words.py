"""A contribution on the wire: one message whose last field holds the masked words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import ReasonCode, Refusal
from protocols.private_sum import messages
from protocols.private_sum.messages import (
    LARGEST_WORDLESS,
    read_contribution,
    read_reply,
    refusal_reply,
    write_contribution,
)
from protocols.proto.round_pb2 import Contribution, Reply, Signed
from protocols.wire.signed_message import serialise

SAID = Contribution(head=Signed(sender="AT", body=b"head"), shares=b"s" * 60, commitments=b"c" * 32)
WORDS = bytes(range(256)) * 2


def code_of(call: object, *arguments: object) -> ReasonCode:
    with pytest.raises(Refusal) as refusal:
        call(*arguments)  # type: ignore[operator]
    return refusal.value.code


def contribution(contribution: Contribution = SAID, words: bytes = WORDS) -> bytes:
    return write_contribution(contribution, memoryview(words))


def test_a_contribution_is_one_ordinary_protobuf_message() -> None:
    data = contribution()
    reply = Reply.FromString(data)
    assert (reply.contribution, reply.words) == (SAID, WORDS)
    assert serialise(reply) == data, "any protobuf writer writes the same bytes"
    read, words = read_contribution(data, "AT", len(WORDS))
    assert (read, bytes(words)) == (SAID, WORDS)


def test_the_words_are_read_without_a_copy() -> None:
    data = contribution()
    _, words = read_contribution(data, "AT", len(WORDS))
    assert words.obj is data
    assert len(words) == len(WORDS)


def test_words_are_written_from_an_array_as_they_are() -> None:
    array = np.arange(40, dtype="<u8") << 40
    data = write_contribution(SAID, array.data.cast("B"))
    assert Reply.FromString(data).words == array.tobytes()
    assert (np.frombuffer(read_contribution(data, "AT", 320)[1], "<u8") == array).all()


@given(st.integers(1, 70_000))
def test_words_of_any_length_are_framed_as_a_message_frames_them(size: int) -> None:
    words = bytes(size)
    assert contribution(words=words) == serialise(Reply(contribution=SAID, words=words))
    assert len(read_contribution(contribution(words=words), "AT", size)[1]) == size


@pytest.mark.parametrize("size", [0, 1, 8, 504, 511, 513, 520, 1024])
def test_words_of_another_length_than_those_of_the_round_are_malformed(size: int) -> None:
    data = contribution(words=bytes(size)) if size else serialise(Reply(contribution=SAID))
    assert code_of(read_contribution, data, "AT", len(WORDS)) is ReasonCode.MALFORMED


def test_words_that_are_not_last_or_come_twice_are_malformed() -> None:
    """A protobuf reader would accept all of these, and of two fields the last."""
    reply_message = serialise(Reply(contribution=SAID))
    framed = contribution()[len(reply_message) :]
    other = framed[:-1] + b"x"
    for data in (
        framed + reply_message,
        other + reply_message + framed,
        reply_message + other + framed,
        framed,
    ):
        assert code_of(read_contribution, data, "AT", len(WORDS)) is ReasonCode.MALFORMED
    for data in (
        reply_message + framed + bytes([0xFA, 0x07, 0]),
        reply_message + framed + b"\x00",
        b"\x00" + reply_message,
    ):
        assert code_of(read_contribution, data, "AT", len(WORDS)) is ReasonCode.MALFORMED


def test_a_second_contribution_in_one_message_is_read_as_protobuf_reads_it() -> None:
    """Both readers use the same content."""
    twice = serialise(Reply(contribution=Contribution(shares=b"other"))) + contribution()
    read, words = read_contribution(twice, "AT", len(WORDS))
    reply = Reply.FromString(twice)
    assert (read, bytes(words)) == (reply.contribution, reply.words)


def test_words_with_another_content_than_a_contribution_are_malformed() -> None:
    framed = contribution()[len(serialise(Reply(contribution=SAID))) :]
    for other in (Reply(bundle=Signed(sender="AT")), Reply(answer=Signed(sender="AT")), Reply()):
        data = serialise(other) + framed
        assert code_of(read_contribution, data, "AT", len(WORDS)) is ReasonCode.MALFORMED


def test_a_refusal_in_place_of_a_contribution_is_reported_as_a_refusal() -> None:
    framed = contribution()[len(serialise(Reply(contribution=SAID))) :]
    for data in (refusal_reply(ReasonCode.DECLINED), refusal_reply(ReasonCode.DECLINED) + framed):
        assert code_of(read_contribution, data, "AT", len(WORDS)) is ReasonCode.DECLINED


def test_a_contribution_cut_anywhere_is_malformed() -> None:
    data = contribution()
    for end in range(len(data)):
        assert code_of(read_contribution, data[:end], "AT", len(WORDS)) is ReasonCode.MALFORMED
    for start in range(1, len(data)):
        with pytest.raises(Refusal):
            read_contribution(data[start:], "AT", len(WORDS))


def test_an_oversized_contribution_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = contribution()
    monkeypatch.setattr(messages, "LARGEST_REPLY", len(data) - 1)
    assert code_of(read_contribution, data, "AT", len(WORDS)) is ReasonCode.MALFORMED


@given(st.binary(max_size=120), st.binary(max_size=12))
def test_a_protobuf_reader_reads_every_contribution_in_the_same_way(
    before: bytes, between: bytes
) -> None:
    framed = contribution(words=bytes(8))[-10 - 1 :]
    for data in (before + framed, serialise(Reply(contribution=SAID)) + between + framed):
        try:
            read, words = read_contribution(data, "AT", 8)
        except Refusal:
            continue
        reply = Reply.FromString(data)
        assert (read, bytes(words)) == (reply.contribution, reply.words)


def test_only_a_contribution_has_words_and_other_replies_are_small() -> None:
    """Replies of set-up are stored for the run, and must not be able to fill the disk."""
    signed = Signed(sender="AT")
    with_words = serialise(Reply(bundle=signed, words=b"x"))
    assert code_of(read_reply, with_words, "AT", "bundle") is ReasonCode.MALFORMED
    fits = serialise(Reply(bundle=Signed(body=bytes(LARGEST_WORDLESS - 20))))
    assert len(read_reply(fits, "AT", "bundle").bundle.body) == LARGEST_WORDLESS - 20
    large = serialise(Reply(bundle=Signed(body=bytes(LARGEST_WORDLESS))))
    assert code_of(read_reply, large, "AT", "bundle") is ReasonCode.MALFORMED
    beside = serialise(Reply(contribution=Contribution(shares=bytes(LARGEST_WORDLESS))))
    framed = contribution()[len(serialise(Reply(contribution=SAID))) :]
    assert code_of(read_contribution, beside + framed, "AT", 512) is ReasonCode.MALFORMED
