"""What a lying coordinator or a country publishes too much of is neither fetched nor stored.

The party is absent, and is named; its restrictions count, as far as they fit. The documents of all
others, the agreement and the node's own country are as before.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from client.documents.store import DocumentStore
from client.state.tables import MIGRATIONS, documents
from governance.documents.models import MAX_BYTES
from governance.errors import DocumentFault
from governance.runtime.database import open_database, transaction
from governance.trust.layout import COORDINATOR_ROLE, policy_path, role_of
from governance.trust.limits import MOST_ROLE_BYTES, OF_COORDINATOR, OF_COUNTRY, most_mirrored
from governance.trust.state import TIMESTAMP_NAME
from tests.support.document_flood import invented, withdrawals
from tests.support.documents import (
    COUNTRIES,
    NOW,
    FederationDocuments,
    LyingCoordinator,
    country_metadata,
    node_keys,
    permit,
    study,
)
from tests.support.narrowing import present

POLICY = b'@id("ee/none") forbid (principal, action, resource) when { context.now < 0 };'
OTHERS = {"DK", "NO", "PT"}


class Reader:
    """DK's node with its mirror, in front of a coordinator that shows what it likes."""

    def __init__(self, folder: Path) -> None:
        self.documents = FederationDocuments(folder).publish_agreement()
        self.asked = study(self.documents.agreed)
        self.documents.propose(self.asked)
        for country in COUNTRIES:
            self.documents.folders[country].set_node(node_keys(country))
            self.documents.folders[country].approve(
                permit(self.documents.agreed, self.asked, country)
            )
            own = self.documents.sign_and_submit(country)
            if country == "DK":
                bundle = own
        self.coordinator, self.fetched = LyingCoordinator(self.documents), dict[str, int]()
        self.store = DocumentStore(
            open_database(folder / "state.db", MIGRATIONS),
            country="DK",
            officer_key=self.documents.officers["DK"].public,
            pinned_root=self.documents.pinned,
        )
        self.store.deliver(bundle, NOW)

    def fetch(self, name: str) -> bytes | None:
        data = self.coordinator.show(name)
        self.fetched[name] = len(data or b"")
        return data

    def sync(self) -> list[str]:
        """Fetch once; return the names of what was fetched."""
        self.fetched.clear()
        self.store.sync(self.fetch, NOW)
        return sorted(self.fetched)

    def put(self, documents: Mapping[str, bytes], version: int = 2) -> None:
        """Show these documents of EE, with EE's own signature."""
        key = self.documents.officers["EE"]
        metadata, files = country_metadata(key, documents, version=version)
        self.coordinator.put(role_of("EE"), metadata, files)

    @property
    def stored(self) -> int:
        return sum(map(len, self.store._files().values()))

    def of(self, part: str) -> list[int]:
        """Return the sizes of the fetched files with this in their names."""
        return [size for name, size in self.fetched.items() if part in name]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def own_and_others_count(reader: Reader) -> None:
    current = reader.store.current(NOW)
    assert current.own.permit(reader.asked.digest)
    view = current.view
    assert {c for c, each in view.countries.items() if each.permit(reader.asked.digest)} >= OTHERS
    assert not view.absent.keys() & OTHERS


def test_one_country_s_bulk_makes_it_absent_and_its_restrictions_count(reader: Reader) -> None:
    refusals = withdrawals("EE", [reader.asked.digest, *invented(4_899)])
    role = role_of("EE")
    granted = permit(reader.documents.agreed, reader.asked, "EE").canonical()
    reader.put(
        refusals
        | {policy_path("EE"): POLICY}
        | {f"{role}/permits/{reader.asked.digest.removeprefix('sha256:')}.json": granted}
    )
    reader.sync()
    own_and_others_count(reader)
    view = reader.store.current(NOW).view
    ours = present(view.country("EE"))
    assert view.absent["EE"] == (
        "EE lists 4902 documents, and at most 2000 count, so its permits do not count"
    )
    assert not ours.permits
    assert ours.policy == POLICY.decode()
    assert len(ours.withdrawals) == OF_COUNTRY.documents - 1
    assert reader.of(f"{role}/permits/") == []
    assert len(reader.of(role)) <= OF_COUNTRY.documents + 1


def large(role: str, number: int, size: int) -> dict[str, bytes]:
    return {
        f"{role}/withdrawals/{n:064x}.json": n.to_bytes(4, "big") * (size // 4)
        for n in range(number)
    }


def test_large_documents_are_fetched_up_to_a_limit_of_bytes(reader: Reader) -> None:
    reader.put(large(role_of("EE"), 40, 200_000))
    reader.sync()
    own_and_others_count(reader)
    assert "at most 2097152 count" in reader.store.view(NOW).absent["EE"]
    assert sum(reader.of("withdrawals")) <= OF_COUNTRY.total


def test_a_document_larger_than_any_may_be_is_not_fetched(reader: Reader) -> None:
    reader.put(large(role_of("EE"), 2, MAX_BYTES + 4))
    reader.sync()
    own_and_others_count(reader)
    assert reader.of("withdrawals") == []


@pytest.mark.parametrize(
    "change",
    [lambda data: data + b" " * 2**20, lambda data: data + b" ", lambda data: data[:-1] + b" "],
    ids=["larger than any", "longer", "other bytes"],
)
def test_a_file_other_than_listed_is_not_stored(
    reader: Reader, change: Callable[[bytes], bytes]
) -> None:
    reader.put(withdrawals("EE", invented(1)))
    name = next(n for n in reader.coordinator.files if "withdrawals" in n)
    reader.coordinator.files[name] = change(reader.coordinator.files[name])
    reader.sync()
    own_and_others_count(reader)
    assert "EE" in reader.store.view(NOW).absent
    assert name not in reader.store._files()


@pytest.mark.parametrize("role", [role_of("EE"), COORDINATOR_ROLE])
def test_a_list_of_documents_with_padding_is_not_stored(reader: Reader, role: str) -> None:
    """Signatures cover the values: spaces between them can be added by anybody."""
    state = reader.coordinator._state()
    reader.coordinator.put(role, state.roles[role] + b" " * MOST_ROLE_BYTES)
    if role == COORDINATOR_ROLE:
        with pytest.raises(DocumentFault, match="at most"):
            reader.sync()
    else:
        reader.sync()
        own_and_others_count(reader)
    assert reader.stored < MOST_ROLE_BYTES


def test_a_padded_root_is_refused(reader: Reader) -> None:
    root = present(reader.coordinator.show("metadata/1.root.json"))
    reader.coordinator.files["metadata/2.root.json"] = root + b" " * 2**20
    with pytest.raises(DocumentFault, match="at most"):
        reader.sync()
    assert reader.stored < 2**20


def studies_of(number: int, size: int) -> dict[str, bytes]:
    return {
        f"studies/number-{n}.json": n.to_bytes(4, "big") * (size // 4) for n in range(1, number + 1)
    }


@pytest.mark.parametrize(
    ("number", "size"),
    [(OF_COORDINATOR.documents + 1, 4), (OF_COORDINATOR.total // 250_000 + 1, 250_000)],
    ids=["too many", "too large"],
)
def test_a_coordinator_s_bulk_is_ignored_and_named(reader: Reader, number: int, size: int) -> None:
    metadata, files = country_metadata(
        reader.documents.document_key, studies_of(number, size), version=5
    )
    reader.coordinator.put(COORDINATOR_ROLE, metadata, files)
    reader.sync()
    own_and_others_count(reader)
    assert reader.of("/studies/") == []
    (ignored,) = reader.store.view(NOW).ignored
    assert "The coordinator lists" in ignored


def test_thousands_of_paths_that_nobody_may_use_are_one_sentence(reader: Reader) -> None:
    """Each would be a line in the node's log and a warning at each command of an officer."""
    targets = {f"{n}-{'x' * 300}.json": b"" for n in range(1_000)}
    metadata, files = country_metadata(reader.documents.document_key, targets, version=5)
    reader.coordinator.put(COORDINATOR_ROLE, metadata, files)
    reader.put({"y" * 10_000: b""})
    reader.sync()
    (ignored,) = reader.store.view(NOW).ignored
    assert "is not a path of the coordinator, like 999 others; ignored" in ignored
    assert len(ignored) < 300
    assert len(reader.store.view(NOW).absent["EE"]) < 300


def test_a_mirror_is_bounded_whatever_everybody_signs(reader: Reader) -> None:
    for country in COUNTRIES:
        key = reader.documents.officers[country]
        targets = large(role_of(country), 30, 200_000)
        metadata, files = country_metadata(key, targets, version=9)
        reader.coordinator.put(role_of(country), metadata, files)
    metadata, files = country_metadata(
        reader.documents.document_key, studies_of(60, 250_000), version=9
    )
    reader.coordinator.put(COORDINATOR_ROLE, metadata, files)
    reader.sync()
    assert set(reader.store.view(NOW).absent) == set(COUNTRIES)
    assert reader.stored <= most_mirrored(countries=len(COUNTRIES), roots=0)
    assert reader.store.own(NOW).permit(reader.asked.digest)  # from its own officer


@pytest.mark.parametrize(
    "unusable",
    [large(role_of("EE"), 2, MAX_BYTES + 4), {"country-DK/node.json": b"{}"}],
    ids=["beyond a limit", "another country's path"],
)
def test_what_was_signed_and_cannot_be_used_makes_older_documents_count_no_more(
    reader: Reader, unusable: dict[str, bytes]
) -> None:
    before = dict(reader.coordinator.files)
    reader.put(unusable, version=7)
    reader.sync()
    reader.coordinator.files = before  # an older state, in which the permit of EE stands
    reader.coordinator.date(NOW)
    reader.coordinator.date(NOW)
    reader.sync()
    assert "version 1, but 7 was seen" in reader.store.view(NOW).absent["EE"]


def test_what_another_key_signed_makes_nothing_older(reader: Reader) -> None:
    """Otherwise the coordinator could make a country's own documents count no more."""
    before = dict(reader.coordinator.files)
    metadata, files = country_metadata(reader.documents.officers["NO"], {}, version=10**6)
    reader.coordinator.put(role_of("EE"), metadata, files)
    reader.sync()
    assert "EE" in reader.store.view(NOW).absent
    reader.coordinator.files = before
    reader.coordinator.date(NOW)
    reader.coordinator.date(NOW)
    reader.sync()
    assert not reader.store.view(NOW).absent


# ---- what is fetched again


def test_nothing_is_fetched_again_that_has_not_changed(reader: Reader) -> None:
    assert len(reader.sync()) > 10
    assert reader.sync() == ["metadata/2.root.json", TIMESTAMP_NAME]
    reader.documents.now = NOW
    reader.documents.sign_and_submit("EE")
    reader.coordinator.files = dict(reader.documents.snapshot_of_store())
    changed = [name for name in reader.sync() if "snapshot" not in name]
    assert changed == ["metadata/2.country-EE.json", "metadata/2.root.json", TIMESTAMP_NAME]
    own_and_others_count(reader)


def damaged(data: bytes) -> bytes:
    return data[:-1] + b" "


@pytest.mark.parametrize("kind", ["root", "targets", "country-EE.json", "permits", "studies"])
def test_a_damaged_copy_is_fetched_again(reader: Reader, kind: str) -> None:
    amend(reader)
    reader.sync()
    held = reader.store._files()
    name = next(n for n in held if kind in n.removeprefix("targets/") and "own" not in n)
    harm(reader, name, damaged)
    assert name in reader.sync()
    assert reader.store._files() == held
    own_and_others_count(reader)


def test_a_copy_is_not_used_for_another_file_with_its_name(reader: Reader) -> None:
    """The coordinator shows other metadata under the same version: the copy is no answer to it."""
    reader.sync()
    version = reader.store.view(NOW).versions.countries["EE"]
    reader.put({}, version=version)
    assert f"metadata/{version}.country-EE.json" in reader.sync()
    assert not present(reader.store.view(NOW).country("EE")).permits


def amend(reader: Reader) -> None:
    """Publish the agreement again, so that there is a second root."""
    reader.documents.store.draft_renewal(NOW)
    reader.documents.sign("DK", "EE", "NO")
    reader.documents.publish()
    reader.coordinator.files = dict(reader.documents.snapshot_of_store())


def harm(reader: Reader, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a stored copy, as a failing disk could."""
    chosen = documents.update().where(documents.c.path == name)
    with transaction(reader.store._engine) as connection:
        connection.execute(chosen.values(bytes=change(reader.store._files(connection)[name])))


def test_metadata_are_read_as_python_tuf_writes_them(reader: Reader) -> None:
    """The limits leave room for what the largest honest party signs."""
    listed = withdrawals("EE", invented(OF_COUNTRY.documents))
    metadata, _ = country_metadata(reader.documents.officers["EE"], listed)
    assert isinstance(Metadata.from_bytes(metadata).signed, Targets)
    assert len(metadata) < MOST_ROLE_BYTES
    assert sum(map(len, listed.values())) < OF_COUNTRY.total
