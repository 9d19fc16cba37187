"""An exchange hides the agreement to get a changed one signed as if it were the first."""

from collections.abc import Callable
from pathlib import Path

import pytest

from governance.trust.layout import FIRST_ROOT
from governance.trust.repository import Repository
from tests.support.documents import node_keys, raw_key
from tests.support.officers import OfficerCommands, root_digest

pytestmark = pytest.mark.enable_socket
HIDES = "The exchange hides the agreement"


def hide(officer: OfficerCommands, folder: Path) -> None:
    """Hide the first root, and show a first draft in which another country's key was replaced."""
    documents = officer.documents
    swapped = documents.agreed.with_officer_keys({"NO": raw_key(66).public.to_text()})
    draft = Repository(folder / "other").draft(swapped, documents.now)
    officer.exchange.tampered = {FIRST_ROOT: None, "draft": draft}


def seen_here(officer: OfficerCommands) -> None:
    officer.done("inbox")


def named_by_the_invitation(officer: OfficerCommands) -> None:
    settings = officer.home.settings()
    officer.home.save(settings.model_copy(update={"root_digest": root_digest(officer.documents)}))


@pytest.mark.parametrize("known", [seen_here, named_by_the_invitation])
def test_a_first_draft_that_hides_the_agreement_gets_no_signature(
    agreed: OfficerCommands, tmp_path: Path, known: Callable[[OfficerCommands], None]
) -> None:
    known(agreed)
    hide(agreed, tmp_path)
    assert HIDES in agreed.refused("sign", "--yes")
    assert HIDES in agreed.run("inbox").stderr


def test_a_hidden_agreement_does_not_delay_documents_for_the_node(
    agreed: OfficerCommands, tmp_path: Path
) -> None:
    """Documents for the node are signed and delivered to it; the exchange is informed."""
    agreed.done("sign", agreed.file("keys.json", node_keys("DK").canonical()), "--yes")
    hide(agreed, tmp_path)
    result = agreed.run("renew", "--node", agreed.make_node())
    assert result.exit_code == 1
    assert HIDES in result.stderr
    assert (agreed.node / "officer" / "country-DK.json").exists()
