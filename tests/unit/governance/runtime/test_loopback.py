"""A daemon serves metrics and health on loopback ports only."""

import pytest
from pydantic import TypeAdapter, ValidationError

from governance.runtime.loopback import LoopbackAddress, host_and_port

ADDRESS: TypeAdapter[str] = TypeAdapter(LoopbackAddress)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("127.8.9.10:1", ("127.8.9.10", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_loopback_addresses_are_accepted(address: str, parts: tuple[str, int]) -> None:
    assert ADDRESS.validate_python(address) == address
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:9464",
        "[::]:9464",
        "192.168.1.7:9464",
        "localhost:9464",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.256:80",
        "127.0.0.1.example:80",
        "::1:9464",
        "127.0.0.1:9464\n",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError):
        ADDRESS.validate_python(address)
