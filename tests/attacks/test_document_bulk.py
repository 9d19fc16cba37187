"""One party's bulk of documents takes nobody else's place, time or disk."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from governance.cedar.process import WORKER, CedarProcess
from governance.cedar.texts import SCHEMA
from governance.trust.layout import policy_path
from governance.trust.limits import OF_COUNTRY
from governance.trust.repository import Repository
from governance.trust.state import TIMESTAMP_NAME
from keys.certificates import Role, TransportAuthority
from keys.identity import SigningKey
from protocols.errors import ProtocolFault
from protocols.proto.exchange_pb2 import SubmitRequest
from protocols.wire.channel import ExchangeLink
from server.exchange.documents import ExchangeDocuments
from server.exchange.relay import Relay
from server.exchange.submissions import MOST_AT_ONCE
from tests.support.document_flood import bulk_bundle, invented, submit_forever, withdrawals
from tests.support.documents import COUNTRIES, DAY, FederationDocuments, node_keys, study
from tests.support.exchange_server import (
    LOOPBACK,
    Caller,
    OpenExchange,
    ScriptedSuperLink,
    caller,
    now,
)
from tests.support.flood import Latency, flood, latency
from tests.support.narrowing import present

BUNDLE = SubmitRequest.COUNTRY_BUNDLE


@dataclass
class AttackedExchange:
    """A real exchange over a document store, the hostile officer of DK and three honest ones."""

    documents: FederationDocuments
    served: ExchangeDocuments
    exchange: OpenExchange
    hostile: Caller
    honest: dict[str, ExchangeLink]

    def renew(self, country: str = "EE") -> None:
        """Sign a country's documents again and submit them."""
        bundle = self.documents.folders[country].sign(self.documents.now, self.key(country))
        self.honest[country].submit(BUNDLE, bundle)

    def renewals(self, country: str) -> Latency:
        """Return how long twenty renewals of a country take."""
        return latency(lambda: self.renew(country), 20, pause=0.05)

    def policy(self, country: str, name: str, version: int) -> bytes:
        """Return a country's documents with a policy that nobody has read yet."""
        text = f'@id("{name}") @clause("x/y") forbid (principal, action, resource);'
        documents = {policy_path(country): text.encode()}
        return bulk_bundle(country, self.key(country), documents, version=version)

    def policies(self, country: str) -> Latency:
        """Return how long twenty submissions of a country with a new policy each take."""
        versions = iter(range(2, 30))

        def submit() -> None:
            version = next(versions)
            policy = self.policy(country, f"{country}-{version}", version)
            self.honest[country].submit(BUNDLE, policy)

        return latency(submit, 20, pause=0.02)

    def fetches(self) -> Latency:
        return latency(lambda: present(self.honest["EE"].fetch(TIMESTAMP_NAME)), 40, pause=0.02)

    def key(self, country: str) -> SigningKey:
        return self.documents.officers[country]

    def refused(self, bundle: bytes) -> str:
        link = self.exchange.link(self.hostile)
        with pytest.raises(ProtocolFault) as caught:
            link.submit(BUNDLE, bundle)
        link.close()
        return str(caught.value)


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[AttackedExchange]:
    documents = FederationDocuments(tmp_path).publish_agreement()
    for country in COUNTRIES:
        documents.folders[country].set_node(node_keys(country))
        documents.sign_and_submit(country)
    served = ExchangeDocuments(
        documents.store,
        document_key=documents.document_key,
        online_key=documents.online_key,
        clock=lambda: documents.now,
        on_change=lambda _: None,
    )
    authority = TransportAuthority.create("nordic-heart", now())
    relay = Relay(ScriptedSuperLink().forward)
    with OpenExchange(authority, relay, enrolments=None, documents=served) as exchange:
        officers = {country: caller(authority, country, Role.OFFICER) for country in COUNTRIES}
        hostile = officers.pop("DK")
        honest = {country: exchange.link(officer) for country, officer in officers.items()}
        yield AttackedExchange(documents, served, exchange, hostile, honest)
        for link in honest.values():
            link.close()


def test_a_flood_of_documents_delays_neither_officers_nor_readers_nor_the_timestamp(
    attacked: AttackedExchange,
) -> None:
    key, documents = attacked.key("DK"), attacked.documents
    bundles = [
        bulk_bundle("DK", key, withdrawals("DK", invented(4_900)), version=2),
        bulk_bundle("DK", key, withdrawals("DK", invented(1_900)), version=3),
        *(bulk_bundle("DK", key, {}, version=version) for version in range(4, 12)),
    ]
    quiet_renewals, quiet_fetches = attacked.renewals("NO"), attacked.fetches()
    hostile, authority = attacked.hostile, attacked.exchange.authority.certificate_pem
    party = f"{LOOPBACK}:{attacked.exchange.port}", authority, hostile.key, hostile.certificate
    with flood(submit_forever, *party, bundles, 16):
        # other work may have the processor for a while, so each may be slow once
        fetches = [attacked.fetches(), attacked.fetches()]
        renewals = [attacked.renewals("EE"), attacked.renewals("PT")]
        attacked.served.refresh()
    assert any(each.is_at_most(quiet_fetches) for each in fetches), fetches
    assert any(each.is_at_most(quiet_renewals) for each in renewals), renewals
    assert attacked.served.not_renewed == ""
    view = documents.view()
    assert not view.absent
    assert view.versions.countries["EE"] == 21
    assert not present(view.country("DK")).withdrawals


def test_decisions_on_studies_that_nobody_published_are_refused(attacked: AttackedExchange) -> None:
    documents, asked = attacked.documents, study(attacked.documents.agreed)
    before = documents.snapshot_of_store()
    bundle = bulk_bundle("DK", attacked.key("DK"), withdrawals("DK", [asked.digest]), version=2)
    why = attacked.refused(bundle)
    assert f"1 study that the coordinator has not published: {asked.digest}" in why
    assert documents.snapshot_of_store() == before
    documents.propose(asked)
    attacked.exchange.link(attacked.hostile).submit(BUNDLE, bundle)
    assert present(documents.view().country("DK")).withdrawal(asked.digest)


@pytest.mark.parametrize(
    ("number", "why"),
    [(OF_COUNTRY.documents, "at most 2000"), (4_900, "at most 2000")],
    ids=["one too many", "many"],
)
def test_too_many_documents_are_refused_before_they_are_verified(
    attacked: AttackedExchange, number: int, why: str
) -> None:
    bundle = bulk_bundle("DK", attacked.key("DK"), withdrawals("DK", invented(number)), version=2)
    assert why in attacked.refused(bundle)


def test_new_versions_without_end_are_refused_after_some(attacked: AttackedExchange) -> None:
    """Each would be stored, logged, and fetched by every node."""
    link, faults = attacked.exchange.link(attacked.hostile), list[str]()
    for version in range(2, MOST_AT_ONCE + 10):
        try:
            link.submit(BUNDLE, bulk_bundle("DK", attacked.key("DK"), {}, version=version))
        except ProtocolFault as fault:
            faults.append(str(fault))
    link.close()
    assert attacked.documents.view().versions.countries["DK"] <= MOST_AT_ONCE + 2
    assert len(faults) >= 7
    assert all("DK has submitted too often" in fault for fault in faults)
    attacked.renew()  # it is not EE's fault


@pytest.fixture
def slow_cedar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cedar takes forever over a policy with the id `slow`, until its time is over."""
    worker, source = tmp_path / "slow.py", WORKER.read_text()
    slow = """if '@id("slow' in text:\n        __import__("time").sleep(60)\n    try:"""
    worker.write_text(source.replace("try:", slow, 1))
    process = CedarProcess(SCHEMA, worker, seconds=0.5)
    monkeypatch.setattr("governance.cedar.engine._process", lambda: process)
    yield
    process.close()


@pytest.mark.usefixtures("slow_cedar")
def test_documents_that_are_slow_to_read_use_up_the_allowance_of_their_country_alone(
    attacked: AttackedExchange,
) -> None:
    """The time of Cedar's process counts, too, and so does each refusal."""
    quiet = attacked.policies("NO")
    bundles = [attacked.policy("DK", f"slow-{n}", n) for n in range(2, 40)]
    hostile, authority = attacked.hostile, attacked.exchange.authority.certificate_pem
    party = f"{LOOPBACK}:{attacked.exchange.port}", authority, hostile.key, hostile.certificate
    with flood(submit_forever, *party, bundles, 4):
        beside = [attacked.policies("EE"), attacked.policies("PT")]
    assert any(each.is_at_most(quiet) for each in beside), beside
    # the flood's end may leave time for a few more
    assert any("DK has used up its time" in attacked.refused(bundles[0]) for _ in range(4))
    renewal = attacked.documents.folders["DK"].sign(attacked.documents.now, attacked.key("DK"))
    attacked.exchange.link(attacked.hostile).submit(BUNDLE, renewal)
    assert attacked.documents.view().versions.countries["DK"] == 2


def test_a_failing_disk_names_no_file_of_the_exchange(
    attacked: AttackedExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "store"))

    with monkeypatch.context() as broken:
        broken.setattr("keys.files.write_private", full)
        why = attacked.refused(bulk_bundle("DK", attacked.key("DK"), {}, version=2))
        attacked.served.refresh()
    assert "The exchange cannot store documents now" in why
    assert str(tmp_path) not in why
    assert attacked.served.not_renewed  # said, and tried again
    attacked.served.refresh()
    assert attacked.served.not_renewed == ""
    attacked.renew()


def test_a_store_full_of_documents_delays_no_timestamp(attacked: AttackedExchange) -> None:
    """It reads no party's documents: after a restart, too, the first one is signed at once."""
    documents, read = attacked.documents, list[str]()
    asked = [study(documents.agreed, id=f"number-{n}") for n in range(20)]
    for each in asked:
        documents.propose(each)
    studies = [each.digest for each in asked]
    bundle = bulk_bundle("DK", attacked.key("DK"), withdrawals("DK", studies), version=2)
    attacked.exchange.link(attacked.hostile).submit(BUNDLE, bundle)
    restarted = Repository(documents.home / "store")
    original = restarted._files.read

    def recorded(name: str) -> bytes | None:
        read.append(name)
        return original(name)

    restarted._files.read = recorded  # type: ignore[method-assign]
    restarted.refresh(documents.now + DAY / 2, online_key=documents.online_key)
    assert not [name for name in read if "withdrawals" in name or "studies" in name]
    assert [name for name in read if "timestamp" in name]
