"""The code computes every value of `private_sum.json`, byte for byte."""

import json
from typing import Any

import pytest

from keys.composite import CompositeSigningKey
from tests.vectors.generate_private_sum import FILE, file_content

RECORDED = json.loads(FILE.read_text())
MADE = file_content(RECORDED)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Return the values in nested objects and lists by their paths."""
    if isinstance(value, dict):
        parts = {f"{path}/{name}": part for name, part in value.items()}
    elif isinstance(value, list):
        parts = {f"{path}/{number}": part for number, part in enumerate(value)}
    else:
        return {path: value}
    return {name: leaf for at, part in parts.items() for name, leaf in leaves(part, at).items()}


@pytest.mark.parametrize("part", ["primitives", "run", "set_up", "rounds"])
def test_the_code_computes_the_values_of_the_file(part: str) -> None:
    recorded, computed = leaves(RECORDED[part]), leaves(json.loads(json.dumps(MADE[part])))
    assert sorted(recorded) == sorted(computed)
    assert [path for path in recorded if recorded[path] != computed[path]] == []


def test_the_composite_signature_verifies() -> None:
    recorded = RECORDED["primitives"]["composite"]
    key = CompositeSigningKey.from_bytes(bytes.fromhex(recorded["seeds"])).public
    assert key.raw.hex() == recorded["public"]
    key.verify(bytes.fromhex(recorded["signature"]), bytes.fromhex(recorded["message"]))


def test_the_run_has_a_roster_round_a_smaller_one_and_a_roster_round_again() -> None:
    sets = [entry["set"] for entry in RECORDED["rounds"]]
    assert sets == [RECORDED["run"]["roster"], ["AT", "CZ", "DK"], RECORDED["run"]["roster"]]
    assert [entry["round"] for entry in RECORDED["rounds"]] == [1, 2, 4]
    for entry in RECORDED["rounds"]:
        given = [entry["countries"][country] for country in entry["set"]]
        columns = zip(*(c["values"] for c in given), *(c["noise"] for c in given), strict=True)
        assert [sum(column) for column in columns] == entry["opened"]
