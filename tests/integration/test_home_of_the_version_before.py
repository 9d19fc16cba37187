"""Homes that the previous version wrote open, verify and stay usable.

`tests/fixtures/write_home` writes them. The manifest beside the archive says what the homes held at
that time. Most of it was read from the files themselves, without the code under test.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine

from client.credentials.identity_keys import IdentityKeys
from client.credentials.keyring import NodeKeyring
from client.node import Node
from client.state.count_id import CountId
from client.state.pause import Pause
from client.state.tables import MIGRATIONS as NODE_MIGRATIONS
from client.status.summary import LinkStatus
from governance.audit.checkpoint import open_checkpoint
from governance.audit.events import EventKind
from governance.audit.exported import export_head
from governance.audit.log import AuditLog
from governance.audit.note import NoteKey
from governance.audit.verify import VerifiedLog, verify_export
from governance.officer import commands_sign
from governance.officer.delivery import Delivery
from governance.officer.home import Identity
from governance.officer.logs import verify_log
from governance.officer.studies import kept_studies
from governance.officer.terminal import Terminal
from governance.policy.assessment import ledger_terms
from governance.results.result import holds_result_of, read_weights
from governance.runtime.database import open_database
from server.key_rotation import open_keys
from server.state.tables import MIGRATIONS as COORDINATOR_MIGRATIONS
from tests.support.home_archive import (
    assert_charged,
    parse_moment,
    read_manifest,
    rows_when_written,
    unpack,
)
from tests.support.homes import (
    COORDINATOR,
    NODE,
    OFFICER,
    PARTIES,
    Homes,
    LogSource,
    NodeCalls,
    OpenCoordinator,
    conduct,
    continue_run,
)
from tests.support.schemas import revisions, rows, tables_with_losses

VERSION = "0.1.0"
TABLE, STOPPED, TRAINING = "heart-by-sex", "heart-once-more", "who-is-ill"
WITHDRAWN = "heart-by-age"
SMALL = 0.01
"""Tolerance: a machine may round a few patients' gradients otherwise; a wrong model is far off."""


@pytest.fixture(scope="module")
def manifest() -> Any:
    return read_manifest(VERSION)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    """Return one copy for all tests that change nothing."""
    return unpack(VERSION, tmp_path_factory.mktemp("homes"))


@pytest.fixture
def homes(shared: Homes, monkeypatch: pytest.MonkeyPatch) -> Homes:
    monkeypatch.chdir(shared.folder)
    return shared


@pytest.fixture
def coordinator(homes: Homes) -> Iterator[OpenCoordinator]:
    coordinator = homes.coordinator()
    yield coordinator
    coordinator.engine.dispose()


@pytest.fixture
def nodes(homes: Homes, coordinator: OpenCoordinator) -> Iterator[dict[str, Node]]:
    opened = {country: homes.node(country, coordinator) for country in PARTIES}
    yield opened
    for node in opened.values():
        node.parts.engine.dispose()


def kept_value(manifest: Any, country: str, name: str) -> Any:
    """Return a stored value of a node, as JSON."""
    values = {row["name"]: row["value"] for row in rows_when_written(manifest, country, "settings")}
    return json.loads(values[name])


def logs(coordinator: OpenCoordinator, nodes: Mapping[str, Node]) -> dict[str, AuditLog]:
    return {COORDINATOR: coordinator.log} | {
        f"{c}/{NODE}": node.parts.log for c, node in nodes.items()
    }


def verified(log: AuditLog, key: NoteKey, written: bytes) -> VerifiedLog:
    """Verify a whole log, by a key of the test, against its earlier signed checkpoint."""
    head = export_head(log)
    return verify_export(log.export(), head["checkpoint"].encode(), key, seen=[written])


def file_contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def sums(node: Node, run: str) -> list[int]:
    """Return the rounds of a run in which a node logged that it made a sum."""
    entries = [json.loads(entry) for entry in node.parts.log.entries()]
    contributed = [e for e in entries if e["kind"] == "sum-contributed" and e["run"] == run]
    return [entry["round"] for entry in contributed]


def files(homes: Homes) -> set[str]:
    """Return the files of nodes and officers, except locks, copies and SQLite's own files."""
    parties = (path for country in PARTIES for path in (homes.folder / country).rglob("*"))
    passing = ("lock", "*.lock", "state.db-*")
    found = {str(p) for p in parties if p.is_file() and not any(map(p.match, passing))}
    return {path for path in found if "/trust/published/" not in path}  # copies, made when missing


class TestHomesAreReadable:
    def test_settings_are_read(self, homes: Homes, manifest: Any) -> None:
        known: dict[str, BaseModel] = {
            f"{COORDINATOR}/coordinator.yaml": homes.coordinator_home().settings()
        }
        for country in PARTIES:
            known[f"{country}/{NODE}/node.yaml"] = homes.node_home(country).settings()
            known[f"{country}/{OFFICER}/officer.yaml"] = homes.officer_home(country).settings()
        assert known.keys() == manifest["settings"].keys()
        for name, settings in known.items():
            assert manifest["settings"][name].items() <= settings.model_dump(mode="json").items()

    def test_key_stores_unlock_and_every_secret_is_known(self, homes: Homes, manifest: Any) -> None:
        """Keys that wait to be used are there, and none is removed as a leftover."""
        keys = open_keys(homes.coordinator_home(), homes.passphrase(COORDINATOR))
        assert keys.next_keys is not None
        for country in PARTIES:
            store = homes.node_store(country)
            identities = IdentityKeys(store)
            assert NodeKeyring.load(store).identity.public == identities.current.public
            assert (identities.successor is not None) == (country == "EE")
            assert store.names() == manifest["secrets"][f"{country}/{NODE}"]
            home = homes.officer_home(country)
            officer = Identity.open(home, home.settings(), homes.passphrase(country, OFFICER))
            assert (officer.next_key is not None) == (country == "EE")
            assert officer.store.names() == manifest["secrets"][f"{country}/{OFFICER}"]
        left = (homes.coordinator_home().keys).glob("*.sealed")
        assert sorted(file.stem for file in left) == manifest["secrets"][COORDINATOR]

    def test_named_values_are_understood(self, nodes: dict[str, Node], manifest: Any) -> None:
        for country, node in nodes.items():
            key = kept_value(manifest, country, "officer-key")
            assert node.parts.documents.officer.current.to_text() == key["key"]
            assert node.parts.documents.officer.announced == key["announced"]
            latest = kept_value(manifest, country, "documents-floor")["latest"]
            assert node.parts.documents.latest_signed() == parse_moment(latest)
            periods = kept_value(manifest, country, "budget-periods")["registers"]["patients"]
            since = node.parts.documents.periods_known_since("patients")
            assert since == parse_moment(periods["since"])
        assert nodes["DK"].parts.documents.officer.announced is None
        assert nodes["EE"].parts.documents.officer.announced is not None
        assert nodes["DK"].parts.pause.state() is None
        assert nodes["EE"].parts.pause.state() == Pause(**kept_value(manifest, "EE", "paused"))

    def test_a_paused_and_restored_node_says_so(
        self, nodes: dict[str, Node], manifest: Any
    ) -> None:
        status = nodes["EE"].status(LinkStatus(connected=True)).to_json()
        assert "The records are being moved." in status["waiting_for"]
        assert status["restored"] == kept_value(manifest, "EE", "restored")
        assert status["log"]["size"] == manifest["databases"]["EE/node"]["rows"]["log_entries"]

    def test_documents_verify(
        self, homes: Homes, coordinator: OpenCoordinator, nodes: dict[str, Node], manifest: Any
    ) -> None:
        views = [
            coordinator.context.view(),
            *(n.parts.documents.view(homes.now) for n in nodes.values()),
        ]
        for country in PARTIES:
            officer = homes.officer(country, coordinator)
            assert officer.trust.knows_root
            views.append(officer.view())
        for view in views:
            studies = {study.id: study.digest for study in view.studies.values()}
            assert studies == manifest["studies"]
            assert view.versions.root == manifest["versions"]["root"]
            assert view.versions.targets == manifest["versions"]["targets"]
            assert dict(view.versions.countries) == manifest["versions"]["countries"]
            assert not view.ignored

    def test_decisions_of_the_officers_are_still_in_force(
        self, homes: Homes, coordinator: OpenCoordinator, nodes: dict[str, Node], manifest: Any
    ) -> None:
        for country, node in nodes.items():
            own_documents = node.parts.documents.current(homes.now).own
            own = homes.officer(country, coordinator).own()
            assert own is not None
            assert (own.version, own.permits) == (own_documents.version, own_documents.permits)
            assert own.withdrawals == own_documents.withdrawals
            withdrawn = {manifest["studies"][WITHDRAWN]} if country == "EE" else set()
            assert set(own_documents.withdrawals) == withdrawn
            assert set(own_documents.permits) == set(manifest["studies"].values())
            digests = {study.digest for study in kept_studies(homes.officer_home(country).studies)}
            assert digests == set(manifest["studies"].values())

    def test_ledgers_have_all_earlier_charges(
        self, homes: Homes, nodes: dict[str, Node], manifest: Any
    ) -> None:
        for country, node in nodes.items():
            written = rows_when_written(manifest, country, "ledger_entries")
            assert_charged(node, written)
            state = node.parts.documents.current(homes.now)
            known = node.parts.documents.periods_known_since("patients")
            terms = ledger_terms(state.view.agreement, "patients", homes.now, known=known)
            assert (
                node.parts.ledger.view(terms).spent_micro
                == sum(row["rdp_micro"] for row in written)
                > 0
            )
            charged = {row["study"] for row in written}
            counts = {
                CountId("", permit.digest).charged_as("")
                for study, permit in state.own.permits.items()
                if study in charged
            }
            assert counts == {row["run"] for row in written if row["phase"] == "cohort-floor"}

    def test_parties_and_certificates_are_known(
        self, coordinator: OpenCoordinator, homes: Homes
    ) -> None:
        listed = coordinator.ask("enrolments")
        assert Counter(
            (party["country"], party["role"], party["status"]) for party in listed
        ) == Counter((country, role, "admitted") for country in PARTIES for role in (NODE, OFFICER))
        files = [homes.node_home(country).certificate for country in PARTIES]
        files += [homes.officer_home(country).certificate_file for country in PARTIES]
        register = coordinator.context.enrolment.register
        callers = [register.peer(file.read_bytes(), "Fetch", homes.now) for file in files]
        assert [caller.country for caller in callers] == [*PARTIES, *PARTIES]

    def test_the_released_result_verifies(
        self, coordinator: OpenCoordinator, manifest: Any
    ) -> None:
        result, key = coordinator.result(TABLE), coordinator.keys.document_key.public
        folder, run = coordinator.home.results / TABLE, manifest["runs"][TABLE]
        assert (result.run, result.study) == (run, manifest["studies"][TABLE])
        assert result.countries == PARTIES
        assert holds_result_of(folder, run, key)
        assert result.table == json.loads((folder / "result.json").read_text())["table"]
        status = coordinator.ask("study_status", name=TABLE)
        assert (status["run"], status["state"], status["over"]) == (run, "finished", True)


class TestHomesStayUsable:
    """Each of these tests changes its own copy."""

    @pytest.fixture
    def homes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homes:
        monkeypatch.chdir(tmp_path)
        return unpack(VERSION, tmp_path)

    @pytest.mark.parametrize(
        "home_name", [COORDINATOR, *(f"{country}/{NODE}" for country in PARTIES)]
    )
    def test_databases_are_migrated_and_nothing_is_lost(
        self, homes: Homes, manifest: Any, home_name: str
    ) -> None:
        file, written = homes.folder / home_name / "state.db", manifest["databases"][home_name]
        migrations = COORDINATOR_MIGRATIONS if home_name == COORDINATOR else NODE_MIGRATIONS
        before = rows(create_engine(f"sqlite:///{file}"))
        assert {name: len(table_rows) for name, table_rows in before.items()} | {
            "alembic_version": 1
        } == (written["rows"])
        known_revisions = manifest["revisions"][home_name.rsplit("/", maxsplit=1)[-1]]
        assert revisions(migrations)[: len(known_revisions)] == known_revisions
        assert written["schema"] == known_revisions[-1]
        opened = open_database(file, migrations)
        assert (
            tables_with_losses(
                {name: table_rows for name, table_rows in before.items() if table_rows},
                rows(opened),
            )
            == []
        )
        with opened.begin() as connection:
            stored_revision = connection.exec_driver_sql(
                "SELECT version_num FROM alembic_version"
            ).scalar()
        assert stored_revision == revisions(migrations)[-1]
        opened.dispose()

    def test_logs_verify_from_their_start_and_continue(
        self, coordinator: OpenCoordinator, nodes: dict[str, Node], manifest: Any
    ) -> None:
        for home_name, log in logs(coordinator, nodes).items():
            written = manifest["databases"][home_name]["checkpoint"].encode()
            key = NoteKey(written.decode().splitlines()[0], log.verifier.key)
            size = manifest["databases"][home_name]["rows"]["log_entries"]
            signed = home_name == COORDINATOR  # a node signs its state when it starts
            assert verified(log, key, written).size == size + signed
            assert open_checkpoint(written, key).size == size
            kinds = {json.loads(entry)["kind"] for entry in log.entries()}
            assert kinds <= set(EventKind)
            if home_name == COORDINATOR:
                coordinator.context.note(EventKind.COORDINATOR_STARTED)
            else:
                nodes[home_name.split("/")[0]].note_start()
            assert verified(log, key, written).size == size + 2, "signed, and started"

    def test_parties_go_on_in_the_same_files(
        self, homes: Homes, coordinator: OpenCoordinator, nodes: dict[str, Node]
    ) -> None:
        """A file under another name would be missed without an error, and a new one started."""
        before = files(homes)
        for country, node in nodes.items():
            node.note_start()
            officer = homes.officer(country, coordinator)
            officer.view()
            commands_sign.renew(officer, Delivery())
            node.do_upkeep()
            node.note_stop()
        assert files(homes) == before

    def test_officers_verify_the_logs_against_earlier_checkpoints(
        self, homes: Homes, coordinator: OpenCoordinator, nodes: dict[str, Node]
    ) -> None:
        for country, node in nodes.items():
            home = homes.officer_home(country)
            before = file_contents(home.seen)
            node.note_start()
            folder = homes.node_home(country).path
            node_log = LogSource(folder, coordinator=False, log=node.parts.log)
            verify_log(home, node_log, Terminal(quiet=True), homes.now)
            both = LogSource(folder, coordinator=True, log=coordinator.log)
            verify_log(home, both, Terminal(quiet=True), homes.now)
            after = file_contents(home.seen)
            assert after.keys() == before.keys(), "an earlier verification was forgotten"
            changed = [name for name, content in before.items() if after[name] != content]
            assert len(changed) == 2, "both logs say that their state is signed from now on"

    def test_the_run_under_way_ends_with_the_same_result_and_is_charged_once(
        self, homes: Homes, manifest: Any
    ) -> None:
        run = manifest["runs"][TRAINING]
        coordinator, nodes = continue_run(homes, run)
        row = coordinator.context.runs.get(run)
        assert (row.state, row.reason, row.attempt) == ("finished", "", 2)
        rounds = coordinator.context.runs.rounds_of(run)
        assert [(each.round, each.phase, each.outcome) for each in rounds] == [
            *((number, "train", "opened") for number in (1, 2, 3)),
            (4, "evaluate", "opened"),
        ]
        result, ending = coordinator.result(TRAINING), manifest["ending"]
        weights = read_weights(coordinator.home.results / TRAINING, result)
        assert weights == pytest.approx(ending["weights"], abs=SMALL)
        assert result.countries == result.figures_over == PARTIES
        assert result.evaluation is not None
        assert result.evaluation.keys() == ending["evaluation"].keys()
        for country, node in nodes.items():
            assert_charged(node, rows_when_written(manifest, country, "ledger_entries"))
            assert sums(node, run) == [1, 2, 3, 4], "a sum was made twice, or not at all"
            node.parts.engine.dispose()
        coordinator.engine.dispose()

    def test_a_stopped_study_can_be_launched_again_without_another_count_charge(
        self, homes: Homes, coordinator: OpenCoordinator, nodes: dict[str, Node], manifest: Any
    ) -> None:
        for node in nodes.values():
            node.note_start()
            node.parts.record_store.refresh()
            node.resume()
        run = coordinator.ask("study_launch", name=STOPPED)["run"]
        conduct(homes, coordinator, run, NodeCalls(nodes))
        again, before = (coordinator.result(name).table for name in (STOPPED, TABLE))
        assert again is not None
        assert before is not None
        for cell, earlier in zip(again["cells"], before["cells"], strict=True):
            assert (cell["labels"], cell["count"]) == (earlier["labels"], earlier["count"])
            if cell["count"] is not None:  # interval ends are rounded outwards now
                assert cell["low"] <= earlier["low"] < earlier["high"] <= cell["high"]
        for country, node in nodes.items():
            known = len(rows_when_written(manifest, country, "ledger_entries"))
            charged = [(entry.run, entry.phase) for entry in node.parts.ledger.entries()[known:]]
            assert charged == [(run, "histogram")]

    def test_pending_keys_come_into_force(
        self, homes: Homes, coordinator: OpenCoordinator, nodes: dict[str, Node], manifest: Any
    ) -> None:
        """Both countries sign the pending keys of coordinator and officer; then all use them."""
        waiting = coordinator.keys.next_keys
        assert waiting is not None
        coordinator.ask("agreement_renew")
        for country in PARTIES:
            officer = homes.officer(country, coordinator)
            commands_sign.sign_waiting_draft(officer, lost_keys=(), yes=True)
        assert coordinator.context.documents.uses_next_keys
        assert set(coordinator.context.view().countries) == set(PARTIES)
        again = open_keys(homes.coordinator_home(), homes.passphrase(COORDINATOR))
        assert (again.identity.public, again.next_keys) == (waiting.identity.public, None)
        announced = nodes["EE"].parts.documents.officer.announced
        homes.officer("EE", coordinator).view()
        assert homes.officer_home("EE").settings().document_key == announced
        nodes["EE"].parts.log_head.move()  # as the daemon does when it starts
        nodes["EE"].sync()
        assert nodes["EE"].parts.documents.officer.current.to_text() == announced
        assert nodes["EE"].parts.documents.current(homes.now).own.withdrawals.keys() == {
            manifest["studies"][WITHDRAWN]
        }
