import json
import time

import pytest

from protocols.wire.encoding import (
    DIGEST_PATTERN,
    MAX_LEVELS,
    canonical_json,
    check_json,
    digest,
)


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


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.parametrize(("opening", "closing"), ["[]", ('{"a":', "}"), ('[{"]":', "}]")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    levels = MAX_LEVELS // len(closing)
    assert json.loads(check_json(nested(levels, opening, closing)))
    for too_many in (levels + 1, 990, 100_000):
        with pytest.raises(ValueError, match="more than 32 levels"):
            check_json(nested(too_many, opening, closing))


def test_brackets_inside_texts_are_no_levels() -> None:
    assert check_json(json.dumps({"a": "[" * 99, '"{' * 99: "\\"}).encode())


@pytest.mark.parametrize("text", [b'"' * 100_001, b'"' + b'\\"' * 50_000, b'"' + b"\\" * 100_001])
def test_a_text_without_end_costs_no_more_than_another(text: bytes) -> None:
    begun = time.process_time()
    check_json(text)
    assert time.process_time() - begun < 1.0, "quadratic time would take minutes"
