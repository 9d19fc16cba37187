import threading
from pathlib import Path

import pytest

from governance.errors import DocumentFault
from governance.trust.bundle import CountryDocuments, own_country
from governance.trust.signing import OfficerDocuments
from tests.support.documents import (
    DAY,
    NOW,
    agreement,
    node_keys,
    permit,
    raw_key,
    study,
    withdrawal,
)

AGREED = agreement()
ASKED = study(AGREED)
KEY = raw_key(100)


@pytest.fixture
def desk(tmp_path: Path) -> OfficerDocuments:
    return OfficerDocuments(tmp_path / "documents", "DK")


def signed(desk: OfficerDocuments, at_least: int = 0) -> CountryDocuments:
    return own_country(desk.sign(NOW, KEY, at_least=at_least), "DK", KEY.public, NOW)


def test_nothing_is_signed_before_it_is_asked_for(desk: OfficerDocuments) -> None:
    assert desk.version == 0
    assert desk.bundle() is None
    desk.approve(permit(AGREED, ASKED))
    assert desk.bundle() is None


def test_each_signature_is_a_new_version_kept_before_it_is_handed_out(
    desk: OfficerDocuments,
) -> None:
    for version in (1, 2, 3):
        bundle = desk.sign(NOW, KEY)
        assert desk.version == version
        assert desk.bundle() == bundle


def test_a_version_is_above_what_the_exchange_shows(desk: OfficerDocuments) -> None:
    assert signed(desk, at_least=7).version == 8
    assert signed(desk, at_least=3).version == 9


def test_a_permit_stays_through_renewals_and_a_new_process(
    desk: OfficerDocuments, tmp_path: Path
) -> None:
    desk.approve(permit(AGREED, ASKED))
    desk.sign(NOW, KEY)
    again = OfficerDocuments(tmp_path / "documents", "DK")
    renewed = own_country(again.sign(NOW + 3 * DAY, KEY), "DK", KEY.public, NOW + 9 * DAY)
    assert renewed.permit(ASKED.digest) is not None
    assert renewed.version == 2


def test_a_withdrawal_stands_beside_the_permit_and_approving_again_takes_it_back(
    desk: OfficerDocuments,
) -> None:
    desk.approve(permit(AGREED, ASKED))
    desk.withdraw(withdrawal(ASKED))
    both = signed(desk)
    assert both.permit(ASKED.digest) is not None
    assert both.withdrawal(ASKED.digest) is not None
    desk.approve(permit(AGREED, ASKED, sentence="The board has changed its mind."))
    after = signed(desk)
    assert after.withdrawal(ASKED.digest) is None
    assert after.permits[ASKED.digest].sentence == "The board has changed its mind."


def test_a_refusal_is_a_withdrawal_without_a_permit(desk: OfficerDocuments) -> None:
    desk.withdraw(withdrawal(ASKED))
    assert signed(desk).permit(ASKED.digest) is None
    assert signed(desk).withdrawal(ASKED.digest) is not None


def test_a_policy_is_set_replaced_and_removed(desk: OfficerDocuments) -> None:
    text = '@id("dk/a") forbid (principal, action, resource);'
    desk.set_policy(text)
    assert signed(desk).policy == text
    desk.set_policy(None)
    assert signed(desk).policy is None


def test_a_policy_that_permits_is_not_even_kept(desk: OfficerDocuments) -> None:
    with pytest.raises(DocumentFault, match="can only forbid"):
        desk.set_policy('@id("dk/a") permit (principal, action, resource);')
    assert signed(desk).policy is None


def test_documents_of_another_country_are_refused(desk: OfficerDocuments) -> None:
    for change in (
        lambda: desk.approve(permit(AGREED, ASKED, "NO")),
        lambda: desk.withdraw(withdrawal(ASKED, "NO")),
        lambda: desk.set_node(node_keys("NO")),
    ):
        with pytest.raises(DocumentFault, match="of NO, not of DK"):
            change()
    assert not signed(desk).permits


def test_two_at_one_desk_never_sign_one_version_twice(desk: OfficerDocuments) -> None:
    made: list[int] = []

    def work() -> None:
        for _ in range(5):
            found = own_country(desk.sign(NOW, KEY), "DK", KEY.public, NOW)
            made.append(found.version)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 21))


def test_a_spoilt_folder_is_a_fault_and_not_a_fresh_start(
    desk: OfficerDocuments, tmp_path: Path
) -> None:
    desk.approve(permit(AGREED, ASKED))
    desk.sign(NOW, KEY)
    for name in ("pending.json", "bundle.json"):
        file = tmp_path / "documents" / name
        kept = file.read_bytes()
        file.write_bytes(kept[: len(kept) // 2])
        with pytest.raises(DocumentFault):
            desk.sign(NOW, KEY)
        file.write_bytes(kept)
    assert signed(desk).version == 2
