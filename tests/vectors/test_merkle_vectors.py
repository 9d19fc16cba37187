"""transparency-dev/merkle: inclusion and consistency proofs, good and bad, and RFC 6962 hashes."""

import base64
import json
from pathlib import Path

import pytest

from governance.audit.merkle import (
    EMPTY_ROOT,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from governance.errors import LogFault
from tests.support.published_vectors import vectors

PROOFS = "transparency-dev-merkle/testdata"


def hashes(texts: list[str] | None) -> list[bytes]:
    return [base64.b64decode(text) for text in texts or []]


@pytest.mark.parametrize("path", vectors(PROOFS, "inclusion/**/*.json"))
def test_inclusion_proofs_have_their_results(path: Path) -> None:
    case = json.loads(path.read_text())
    leaf, root = hashes([case["leafHash"] or "", case["root"] or ""])
    arguments = case["leafIdx"], case["treeSize"], leaf, hashes(case["proof"]), root
    if case["wantErr"]:
        with pytest.raises(LogFault):
            verify_inclusion(*arguments)
    else:
        verify_inclusion(*arguments)


@pytest.mark.parametrize("path", vectors(PROOFS, "consistency/**/*.json"))
def test_consistency_proofs_have_their_results(path: Path) -> None:
    case = json.loads(path.read_text())
    root1, root2 = hashes([case["root1"] or "", case["root2"] or ""])
    arguments = case["size1"], root1, case["size2"], root2, hashes(case["proof"])
    if case["wantErr"]:
        with pytest.raises(LogFault):
            verify_consistency(*arguments)
    else:
        verify_consistency(*arguments)


@pytest.mark.parametrize("path", vectors("c2sp-notes", "rfc6962-hashes.json"))
def test_hashes_have_known_values(path: Path) -> None:
    case = json.loads(path.read_text())
    assert EMPTY_ROOT.hex() == case["empty_root"]
    assert leaf_hash(b"").hex() == case["leaf_of_empty"]
    assert leaf_hash(b"L123456").hex() == case["leaf_of_L123456"]
    assert node_hash(b"N123", b"N456").hex() == case["node_N123_N456"]
