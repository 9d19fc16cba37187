import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from governance.documents.study import Study
from governance.errors import DocumentFault
from governance.trust import signing
from governance.trust.bundle import CountryDocuments, own_country
from governance.trust.limits import OF_COUNTRY, WITHDRAWAL_BYTES, Allowance
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
def folder(tmp_path: Path) -> OfficerDocuments:
    return OfficerDocuments(tmp_path / "documents", "DK")


def signed(folder: OfficerDocuments, newer_than: int = 0) -> CountryDocuments:
    return own_country(folder.sign(NOW, KEY, newer_than=newer_than), "DK", KEY.public, NOW)


def test_nothing_is_signed_before_a_request(folder: OfficerDocuments) -> None:
    assert folder.version == 0
    assert folder.bundle() is None
    folder.approve(permit(AGREED, ASKED))
    assert folder.bundle() is None


def test_each_signature_is_a_new_version_that_is_stored_before_it_is_returned(
    folder: OfficerDocuments,
) -> None:
    for version in (1, 2, 3):
        bundle = folder.sign(NOW, KEY)
        assert folder.version == version
        assert folder.bundle() == bundle


def test_a_version_is_above_the_one_at_the_exchange(folder: OfficerDocuments) -> None:
    assert signed(folder, newer_than=7).version == 8
    assert signed(folder, newer_than=3).version == 9


def test_a_permit_stays_through_renewals_and_a_new_process(
    folder: OfficerDocuments, tmp_path: Path
) -> None:
    folder.approve(permit(AGREED, ASKED))
    folder.sign(NOW, KEY)
    again = OfficerDocuments(tmp_path / "documents", "DK")
    renewed = own_country(again.sign(NOW + 3 * DAY, KEY), "DK", KEY.public, NOW + 9 * DAY)
    assert renewed.permit(ASKED.digest) is not None
    assert renewed.version == 2


def test_a_withdrawal_is_kept_beside_the_permit_and_a_new_approval_removes_it(
    folder: OfficerDocuments,
) -> None:
    folder.approve(permit(AGREED, ASKED))
    folder.withdraw(withdrawal(ASKED))
    both = signed(folder)
    assert both.permit(ASKED.digest) is not None
    assert both.withdrawal(ASKED.digest) is not None
    folder.approve(permit(AGREED, ASKED, sentence="The board has changed its mind."))
    after = signed(folder)
    assert after.withdrawal(ASKED.digest) is None
    assert after.permits[ASKED.digest].sentence == "The board has changed its mind."


def test_a_refusal_is_a_withdrawal_without_a_permit(folder: OfficerDocuments) -> None:
    folder.withdraw(withdrawal(ASKED))
    assert signed(folder).permit(ASKED.digest) is None
    assert signed(folder).withdrawal(ASKED.digest) is not None


def test_a_policy_is_set_replaced_and_removed(folder: OfficerDocuments) -> None:
    text = '@id("dk/a") forbid (principal, action, resource);'
    folder.set_policy(text)
    assert signed(folder).policy == text
    folder.set_policy(None)
    assert signed(folder).policy is None


def test_a_policy_that_permits_is_not_stored(folder: OfficerDocuments) -> None:
    with pytest.raises(DocumentFault, match="can only forbid"):
        folder.set_policy('@id("dk/a") permit (principal, action, resource);')
    assert signed(folder).policy is None


def test_documents_of_another_country_are_refused(folder: OfficerDocuments) -> None:
    changes: tuple[Callable[[], None], ...] = (
        lambda: folder.approve(permit(AGREED, ASKED, "NO")),
        lambda: folder.withdraw(withdrawal(ASKED, "NO")),
        lambda: folder.set_node(node_keys("NO")),
    )
    for change in changes:
        with pytest.raises(DocumentFault, match="for NO, not for DK"):
            change()
    assert not signed(folder).permits


def numbered(number: int) -> Study:
    return ASKED.model_copy(update={"id": f"number-{number}"})


def test_a_full_folder_can_still_withdraw_every_permit_and_renew(
    folder: OfficerDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "OF_COUNTRY", Allowance(documents=7, total=OF_COUNTRY.total))
    folder.set_node(node_keys("DK"))
    studies = [numbered(n) for n in range(3)]
    for asked in studies:
        folder.approve(permit(AGREED, asked))
    assert folder.room == 0
    changes: tuple[Callable[[], None], ...] = (
        lambda: folder.approve(permit(AGREED, numbered(4))),
        lambda: folder.set_policy('@id("dk/a") forbid (principal, action, resource);'),
    )
    for change in changes:
        with pytest.raises(DocumentFault, match="no room") as caught:
            change()
        assert "DK lists" in caught.value.why
    for asked in studies:
        folder.withdraw(withdrawal(asked))
    assert folder.room == 0
    folder.approve(permit(AGREED, studies[0]))  # it replaces the withdrawal
    assert len(signed(folder).withdrawals) == 2


def test_room_for_withdrawals_is_kept_in_bytes_too(
    folder: OfficerDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = len(permit(AGREED, numbered(1)).canonical()) + WITHDRAWAL_BYTES
    monkeypatch.setattr(signing, "OF_COUNTRY", Allowance(documents=100, total=2 * one))
    folder.approve(permit(AGREED, numbered(1)))
    folder.approve(permit(AGREED, numbered(2)))
    with pytest.raises(DocumentFault, match="no room"):
        folder.approve(permit(AGREED, numbered(3)))
    reason = "x" * (WITHDRAWAL_BYTES - len(withdrawal(ASKED).canonical()))
    for number in (1, 2):
        long = withdrawal(numbered(number)).model_copy(update={"reason": reason})
        folder.withdraw(long)


def test_two_programs_never_sign_the_same_version(folder: OfficerDocuments) -> None:
    signed_versions: list[int] = []

    def work() -> None:
        for _ in range(5):
            documents = own_country(folder.sign(NOW, KEY), "DK", KEY.public, NOW)
            signed_versions.append(documents.version)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(signed_versions) == list(range(1, 21))


def test_a_damaged_folder_is_a_fault_and_not_a_new_start(
    folder: OfficerDocuments, tmp_path: Path
) -> None:
    folder.approve(permit(AGREED, ASKED))
    folder.sign(NOW, KEY)
    for name in ("pending.json", "bundle.json"):
        file = tmp_path / "documents" / name
        contents = file.read_bytes()
        file.write_bytes(contents[: len(contents) // 2])
        with pytest.raises(DocumentFault):
            folder.sign(NOW, KEY)
        file.write_bytes(contents)
    assert signed(folder).version == 2
