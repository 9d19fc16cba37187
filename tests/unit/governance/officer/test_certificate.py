"""An officer's certificate is renewed when a command connects to the exchange."""

from datetime import timedelta

from governance.officer.home import TRANSPORT_KEY
from governance.officer.session import OfficerSession
from governance.officer.terminal import Terminal
from governance.trust.layout import FIRST_ROOT
from keys.certificates import Role, public_pem
from keys.renewal import certified_key, ends_of
from keys.store import KeyStore
from protocols.wire.channel import LinkFault
from tests.support.documents import NOW
from tests.support.officers import PASSPHRASE, OfficerCommands, invitation

DAY = timedelta(days=1)


def key_of(officer: OfficerCommands) -> bytes:
    return KeyStore.open(officer.home.keys, PASSPHRASE.encode()).get(TRANSPORT_KEY)


def forward(officer: OfficerCommands, days: int) -> None:
    officer.now = officer.documents.now = NOW + days * DAY
    officer.documents.refresh()


def test_nothing_is_renewed_before_it_is_time(agreed: OfficerCommands) -> None:
    forward(agreed, 59)
    agreed.done("inbox")
    assert agreed.exchange.renewals == []


def test_it_is_renewed_with_a_new_key_before_the_command_runs(agreed: OfficerCommands) -> None:
    before = key_of(agreed)
    forward(agreed, 61)
    agreed.done("inbox")
    certificate = agreed.home.certificate_file.read_bytes()
    assert agreed.exchange.presented == [certificate]
    assert key_of(agreed) != before
    assert certified_key(certificate) == public_pem(key_of(agreed))
    assert ends_of(certificate) == agreed.now + 90 * DAY
    agreed.done("inbox")
    assert len(agreed.exchange.renewals) == 1


def test_a_command_that_does_not_connect_renews_nothing(agreed: OfficerCommands) -> None:
    forward(agreed, 61)
    assert agreed.run("log", "list", "--node", agreed.node, unlock=False).exit_code == 1
    assert agreed.exchange.renewals == []


def test_a_failed_renewal_is_reported_and_the_command_runs(agreed: OfficerCommands) -> None:
    agreed.exchange.renewal_refusal = LinkFault("The exchange refused the call", why="two holders")
    before = agreed.home.certificate_file.read_bytes()
    forward(agreed, 61)
    output = agreed.done("inbox")
    assert "was not renewed, and ends on 2026-11-30" in output
    assert "Two holders" in output
    assert agreed.home.certificate_file.read_bytes() == before
    waiting = agreed.exchange.renewals, agreed.exchange.presented
    assert waiting == ([], [])


def test_a_program_uses_the_certificate_that_the_agent_renewed_meanwhile(
    agreed: OfficerCommands,
) -> None:
    """With two programs of one officer, the slower one must not look like a thief."""
    slow, quick = (
        OfficerSession.open(
            agreed.home, PASSPHRASE.encode(), Terminal(), lambda: agreed.now, dialling
        )
        for dialling in [lambda *_, **__: agreed.exchange] * 2
    )
    assert slow.exchange.fetch(FIRST_ROOT)
    forward(agreed, 61)
    assert quick.exchange.fetch(FIRST_ROOT)
    assert slow.exchange.fetch(FIRST_ROOT)
    certificate = agreed.home.certificate_file.read_bytes()
    assert agreed.exchange.presented == [certificate, certificate]
    assert len(agreed.exchange.renewals) == 1


def test_another_party_s_certificate_is_refused(agreed: OfficerCommands) -> None:
    agreed.exchange.issued_to = ("EE", Role.OFFICER)
    before = agreed.home.certificate_file.read_bytes()
    forward(agreed, 61)
    assert "not for this party" in agreed.done("inbox")
    assert agreed.home.certificate_file.read_bytes() == before


def test_an_expired_certificate_says_what_to_do_and_a_new_invitation_helps(
    agreed: OfficerCommands,
) -> None:
    keys = {path.name: path.read_bytes() for path in agreed.home.keys.iterdir()}
    forward(agreed, 120)
    output = agreed.refused("inbox")
    assert "Your certificate expired on 2026-11-30" in output
    assert "new invitation" in output
    letter = invitation(expires=agreed.now + DAY)
    agreed.done("enrol", agreed.file("invitation.json", letter.model_dump_json()))
    agreed.done("inbox")
    after = {path.name: path.read_bytes() for path in agreed.home.keys.iterdir()}
    assert {name for name in keys if keys[name] != after[name]} == {f"{TRANSPORT_KEY}.sealed"}
