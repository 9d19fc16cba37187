import pytest

from protocols.wire.encoding import DIGEST_PATTERN, canonical_json, digest


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value = {"€": 1, "a": [1.0, 1e21, True, None], "A": "\n"}
    assert canonical_json(value) == b'{"A":"\\n","a":[1,1e+21,true,null],"\xe2\x82\xac":1}'


def test_order_of_keys_does_not_matter() -> None:
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})


def test_digest_names_its_algorithm() -> None:
    assert digest(b"abc") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 64]
)
def test_other_forms_of_a_digest_are_refused(text: str) -> None:
    assert not DIGEST_PATTERN.match(text)


def test_a_digest_is_accepted() -> None:
    assert DIGEST_PATTERN.match(digest(b""))
