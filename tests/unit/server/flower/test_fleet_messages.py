"""Every call that the relay forwards has its protobuf message."""

from google.protobuf.message import Message

from protocols.wire.flower_frame import FLEET_CALLS
from server.flower import fleet_messages


def test_every_name_is_a_protobuf_message() -> None:
    for name in fleet_messages.__all__:
        assert issubclass(getattr(fleet_messages, name), Message), name


def test_every_forwarded_call_has_its_request_message() -> None:
    names = {name.rsplit("/", 1)[-1] for name in FLEET_CALLS}
    assert {f"{name}Request" for name in names} <= set(fleet_messages.__all__)
