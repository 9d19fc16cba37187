"""Calibrations that must not happen, or must not be seen: `pratique-node calibrate`.

The attacks bring results that were altered, signed by a stranger or by a coordinator that lies, and
permits that do not allow it, ended or were withdrawn. Then they look for the figures of the records
wherever they must not be, and for a way by which the file could be sent or follow a link.
"""

import ast
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from client.commands import calibrate
from client.commands.calibration_file import NOTICE, Calibration
from client.errors import NodeFault, RecordFault
from client.node import Node
from client.tasks.local_fit import LocalFit, fit_locally
from governance.documents.study import Study
from governance.errors import DocumentFault, ResultFault
from keys.errors import KeyFault, PratiqueError
from keys.identity import SigningKey
from protocols.errors import ReasonCode, Refusal
from tests.support.captured_logs import Lines, restored_logging
from tests.support.documents import FederationDocuments, raw_key, withdrawal
from tests.support.node_federation import NodeFederation, log_lines
from tests.support.released_models import (
    calibrated,
    edited,
    give_records,
    permitted,
    released,
    shifted_rows,
    trained,
)

ROOT = Path(__file__).parents[2]
ROOMS = ("keys", "protocols", "governance", "client", "server")


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> NodeFederation:
    nodes = NodeFederation(tmp_path_factory.mktemp("calibrate") / "federation")
    permitted(nodes, nodes.study(**trained()))
    nodes.close()
    return nodes


@pytest.fixture
def federation(founded: NodeFederation, tmp_path: Path) -> Iterator[NodeFederation]:
    copy = founded.copied(tmp_path / "federation")
    yield copy
    copy.close()


@pytest.fixture
def study(federation: NodeFederation) -> Study:
    return federation.study(**trained())


@pytest.fixture
def node(federation: NodeFederation, study: Study) -> Node:
    dk = federation.nodes["DK"]
    give_records(dk, shifted_rows(study))
    return dk


def refused(node: Node, source: Path, kind: type[PratiqueError]) -> PratiqueError:
    """Try to calibrate: nothing is written, and the log holds the refusal."""
    before = len(log_lines(node))
    with pytest.raises(kind) as caught:
        calibrated(node, source)
    assert caught.value.what
    assert caught.value.fix
    assert not list(node.parts.home.path.rglob("calibration.json"))
    entries = log_lines(node)[before:]
    assert len(entries) == 1
    assert '"kind":"calibration-refused"' in entries[0]
    assert '"outcome":"refused"' in entries[0]
    assert str(source) not in entries[0]
    return caught.value


class TestResultsThatAreNotTheCoordinators:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (lambda fields: fields.update(keep_until="2099-01-01T00:00:00Z"), "does not verify"),
            (lambda fields: fields["features"][0].update(bounds=[0, 60]), "does not verify"),
            (lambda fields: fields.update(run="d" * 32), "does not verify"),
            (lambda fields: fields.update(signer=raw_key(77).public.to_text()), "not trusted"),
            (lambda fields: fields.update(extra=1), "not in the form of a result"),
            (lambda fields: fields.pop("signature"), "does not verify"),
        ],
    )
    def test_an_altered_result(
        self,
        node: Node,
        study: Study,
        tmp_path: Path,
        change: Callable[[dict[str, Any]], object],
        why: str,
    ) -> None:
        source = edited(released(study, tmp_path / "result"), change)
        assert why in refused(node, source, ResultFault).why

    def test_a_result_that_a_stranger_signed(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source = released(study, tmp_path / "result", key=raw_key(77))
        assert "is not trusted here" in refused(node, source, ResultFault).why

    @pytest.mark.parametrize("number", [1, 3, 100])
    def test_no_other_key_of_the_documents_counts(
        self, node: Node, study: Study, tmp_path: Path, number: int
    ) -> None:
        """Neither the coordinator's keys for messages and freshness, nor an officer's."""
        source = released(study, tmp_path / "result", key=raw_key(number))
        refused(node, source, ResultFault)

    def test_only_the_published_result_of_a_key_that_was_replaced(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        """The coordinator has another key now, and still lists what the former one signed."""
        former, documents = raw_key(77), federation.documents
        source = released(study, tmp_path / "result", key=former)
        data, keys = (source / "result.json").read_bytes(), _coordinator_keys(documents)
        documents.store.add_release(study.id, data, documents.now, **keys)
        node.sync()
        later = released(study, tmp_path / "later", key=former, released="2026-09-01T13:00:00Z")
        refused(node, later, ResultFault)
        assert calibrated(node, source).calibration.run == "c" * 32

    def test_another_model_beside_the_signed_result(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        file = released(study, tmp_path / "result") / "model.safetensors"
        save_file({name: part + 1 for name, part in load_file(file).items()}, file)
        assert "not the model" in refused(node, file.parent, ResultFault).why

    @pytest.mark.parametrize("gone", ["result.json", "model.safetensors"])
    def test_a_file_that_is_missing(
        self, node: Node, study: Study, tmp_path: Path, gone: str
    ) -> None:
        source = released(study, tmp_path / "result")
        (source / gone).unlink()
        refused(node, source, ResultFault)

    @pytest.mark.parametrize("place", ["result.json", "model.safetensors"])
    def test_a_pipe_is_not_waited_for(
        self, node: Node, study: Study, tmp_path: Path, place: str
    ) -> None:
        """An unpacked archive can contain one; the command would wait, and hold the node."""
        source = released(study, tmp_path / "result")
        (source / place).unlink()
        os.mkfifo(source / place)
        assert "not a regular file" in refused(node, source, ResultFault).why


class TestACoordinatorThatLies:
    def test_a_result_of_a_study_that_is_not_published(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source = released(study, tmp_path / "result", study="sha256:" + "e" * 64)
        fault = refused(node, source, Refusal)
        assert "not among the published documents" in fault.what

    def test_a_result_with_other_terms_than_its_study(
        self, node: Node, federation: NodeFederation, study: Study, tmp_path: Path
    ) -> None:
        other = federation.study(**trained(inputs=["sex"]))
        changes = {"task": other.task, "weights": np.zeros(3)}
        fault = refused(node, released(study, tmp_path / "task", **changes), Refusal)
        assert "differs from its published study in the task" in fault.why
        wider = study.features[0].model_copy(update={"bounds": (0.0, 60.0)})
        features = (wider, *study.features[1:])
        fault = refused(node, released(study, tmp_path / "features", features=features), Refusal)
        assert "in the features" in fault.why

    def test_a_result_that_is_kept_no_longer(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source = released(study, tmp_path / "old", keep_until="2026-09-01T12:00:00Z")
        assert "since then it should be deleted" in refused(node, source, Refusal).why
        source = released(study, tmp_path / "odd", keep_until="for ever")
        assert "does not state until when" in refused(node, source, Refusal).why

    @pytest.mark.parametrize("number", [np.nan, np.inf, 1e308])
    def test_a_model_that_predicts_nothing(
        self, node: Node, study: Study, tmp_path: Path, number: float
    ) -> None:
        """Whatever the model makes of the records, the log has one sentence for it."""
        weights = np.array([number, -number, number, -number])
        try:
            written = calibrated(node, released(study, tmp_path / "result", weights=weights))
        except RecordFault:
            assert "The records of this node cannot be used for it" in log_lines(node)[-1]
        else:
            assert np.isfinite([written.calibration.slope, written.calibration.slope_error]).all()


class TestPermitsThatDoNotAllowIt:
    def test_without_the_condition(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        permitted(federation, study, calibrate=False)
        fault = refused(node, released(study, tmp_path / "result"), Refusal)
        assert f"pratique-officer approve {study.id} --calibrate --reconsider" in fault.fix
        assert "one more charged run" in fault.fix

    def test_without_a_permit(self, federation: NodeFederation, node: Node, tmp_path: Path) -> None:
        other = federation.study(**trained(rounds=2) | {"id": "not-permitted"})
        federation.propose(other)
        node.sync()
        fault = refused(node, released(other, tmp_path / "result"), Refusal)
        assert "given no permit" in fault.why
        assert "approve not-permitted --calibrate`" in fault.fix

    def test_with_a_permit_that_expired(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source = released(study, tmp_path / "result")
        federation.later(timedelta(days=60))
        node.sync()
        assert "permit of DK expired" in refused(node, source, Refusal).why

    def test_with_a_permit_that_was_withdrawn(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        federation.withdraw("DK", study)
        fault = refused(node, released(study, tmp_path / "result"), Refusal)
        assert 'to this study: "New advice of the board."' in fault.why

    def test_with_a_withdrawal_that_waits_in_the_officers_folder(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        """The daemon did not run when the officer withdrew; the command reads what waits first."""
        source, before = released(study, tmp_path / "result"), len(log_lines(node))
        folder = federation.documents.folders["DK"]
        folder.withdraw(withdrawal(study))
        bundle = federation.documents.sign_and_submit("DK")
        (node.parts.home.officer / "country-DK-0000000009.json").write_bytes(bundle)
        with pytest.raises(NodeFault, match="officer wait"):  # as if the daemon held the node
            node.parts.updates.require_none_waiting()
        assert len(log_lines(node)) == before
        with pytest.raises(Refusal) as caught:
            calibrated(node, source)
        assert 'to this study: "New advice of the board."' in caught.value.why
        assert not list(node.parts.home.path.rglob("calibration.json"))
        node.parts.updates.require_none_waiting()

    def test_with_a_withdrawal_while_the_records_are_read(
        self,
        federation: NodeFederation,
        node: Node,
        study: Study,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """All is decided again after the fit, so the figures are in no file."""
        source = released(study, tmp_path / "result")

        def withdrawn_meanwhile(*arguments: Any) -> LocalFit:
            federation.withdraw("DK", study)
            return fit_locally(*arguments)

        monkeypatch.setattr(calibrate, "fit_locally", withdrawn_meanwhile)
        with pytest.raises(Refusal, match="may not be calibrated"):
            calibrated(node, source)
        assert not list(node.parts.home.path.rglob("calibration.json"))
        assert not [line for line in log_lines(node) if "model-calibrated" in line]

    def test_on_a_node_that_is_paused(self, node: Node, study: Study, tmp_path: Path) -> None:
        node.pause("records are being corrected")
        assert "are being corrected" in refused(node, released(study, tmp_path / "r"), Refusal).why

    def test_for_fewer_features(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        permitted(federation, study, features=("age", "disease"))
        fault = refused(node, released(study, tmp_path / "result"), Refusal)
        assert "does not cover the features" in fault.why

    def test_against_the_countrys_own_policy(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        policy = (
            '@id("no-ages") @sentence("No study may read ages.") @fix("leave the age out") '
            'forbid (principal, action, resource) when { context.study.features.contains("age") };'
        )
        federation.documents.folders["DK"].set_policy(policy)
        federation.hand_over("DK")
        fault = refused(node, released(study, tmp_path / "result"), Refusal)
        assert "No study may read ages." in fault.why

    def test_with_documents_that_are_not_up_to_date(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source = released(study, tmp_path / "result")
        federation.documents.now += timedelta(days=3)
        refused(node, source, DocumentFault)

    def test_for_another_register(
        self, federation: NodeFederation, study: Study, tmp_path: Path
    ) -> None:
        settings = federation.settings("DK", person_register="births")
        other = federation.restart("DK", settings=settings)
        fault = refused(other, released(study, tmp_path / "result"), Refusal)
        assert isinstance(fault, Refusal)
        assert fault.code is ReasonCode.POLICY


class TestPatientsWhoOptedOut:
    def test_the_fit_is_as_if_their_rows_had_never_been(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source = released(study, tmp_path / "result")
        whole = calibrated(node, source).calibration
        listed = tmp_path / "opt-outs"
        listed.write_text("".join(f"p{n}\n" for n in range(0, 900, 3)))
        settings = federation.settings("DK", opt_out=listed)
        left_out = calibrated(
            federation.restart("DK", settings=settings), source, replace=True
        ).calibration
        rows = shifted_rows(study)
        give_records(node, [row for n, row in enumerate(rows) if n >= 900 or n % 3])
        removed = calibrated(federation.restart("DK"), source, replace=True).calibration
        assert left_out.patients == removed.patients < whole.patients
        assert (left_out.intercept, left_out.slope) == (removed.intercept, removed.slope)
        assert left_out.intercept != whole.intercept

    def test_a_list_that_cannot_be_read_stops_it(
        self, federation: NodeFederation, node: Node, study: Study, tmp_path: Path
    ) -> None:
        (tmp_path / "opt-outs").write_text("a,b\n")
        settings = federation.settings("DK", opt_out=tmp_path / "opt-outs")
        again = federation.restart("DK", settings=settings)
        refused(again, released(study, tmp_path / "result"), RecordFault)


class TestTheFile:
    def test_only_its_owner_can_read_it(self, node: Node, study: Study, tmp_path: Path) -> None:
        source, mask = released(study, tmp_path / "result"), os.umask(0)
        try:
            default = calibrated(node, source).path
            named = calibrated(node, source, out=tmp_path / "mine.json").path
        finally:
            os.umask(mask)
        assert default == node.parts.home.path / "calibrations" / study.id / "calibration.json"
        for file in (default, named):
            assert file.stat().st_mode & 0o777 == 0o600
            assert file.read_text().startswith('{\n  "notice": "not private: never publish",')
        for folder in (default.parent, default.parent.parent):
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not list(tmp_path.glob(".mine*"))

    def test_a_folder_that_others_can_open_is_refused(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        node.parts.home.calibrations.mkdir(mode=0o755)
        with pytest.raises(KeyFault, match="open to other users"):
            calibrated(node, released(study, tmp_path / "result"))
        assert "calibrat" not in log_lines(node)[-1]

    @pytest.mark.parametrize("replace", [False, True])
    @pytest.mark.parametrize("target", ["file", "nothing", "calibration"])
    def test_a_link_at_its_place_is_not_followed(
        self, node: Node, study: Study, tmp_path: Path, *, replace: bool, target: str
    ) -> None:
        source, victim = released(study, tmp_path / "result"), tmp_path / "victim"
        if target == "file":
            victim.write_text("records")
        if target == "calibration":
            calibrated(node, source, out=victim)
        before = victim.read_text() if victim.exists() else None
        (tmp_path / "out.json").symlink_to(victim)
        with pytest.raises(NodeFault):
            calibrated(node, source, out=tmp_path / "out.json", replace=replace)
        assert (tmp_path / "out.json").is_symlink()
        assert (victim.read_text() if victim.exists() else None) == before

    def test_what_exists_is_kept_unless_it_is_a_calibration_to_replace(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        source, data = released(study, tmp_path / "result"), node.parts.settings.data
        records, out = data.read_text(), tmp_path / "out.json"
        entries = len(log_lines(node))
        for replace in (False, True):
            with pytest.raises(NodeFault):
                calibrated(node, source, out=data, replace=replace)
        assert data.read_text() == records
        assert len(log_lines(node)) == entries  # the records were not used
        first = calibrated(node, source, out=out)
        with pytest.raises(NodeFault, match="exists already"):
            calibrated(node, source, out=out)
        out.chmod(0o644)
        again = calibrated(node, source, out=out, replace=True)
        assert again.calibration == first.calibration
        assert out.stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("place", ["officer/country-DK.json", "log-head", "run/x", "mine"])
    def test_it_is_not_among_the_files_of_the_node(
        self, node: Node, study: Study, tmp_path: Path, place: str
    ) -> None:
        """There the daemon might read it, or a backup hold it; also if a link leads there."""
        source, home = released(study, tmp_path / "result"), node.parts.home.path
        (home / "run").mkdir(exist_ok=True)
        (tmp_path / "link").symlink_to(home)
        for out in (home / place, tmp_path / "link" / place):
            with pytest.raises(NodeFault, match="in the node's folder"):
                calibrated(node, source, out=out)

    def test_a_folder_that_does_not_exist_is_not_made(
        self, node: Node, study: Study, tmp_path: Path
    ) -> None:
        with pytest.raises(NodeFault, match="folder does not exist"):
            calibrated(node, released(study, tmp_path / "result"), out=tmp_path / "no" / "file")


class TestWhereTheFiguresAre:
    def test_in_the_file_and_nowhere_else(self, node: Node, study: Study, tmp_path: Path) -> None:
        source, home = released(study, tmp_path / "result"), node.parts.home.path
        lines = Lines()
        with restored_logging() as configure:
            configure(stream=lines)
            calibration = calibrated(node, source, out=tmp_path / "out.json").calibration
        needles = [needle.encode() for needle in _figures(calibration)]
        assert all(needle in (tmp_path / "out.json").read_bytes() for needle in needles)
        entry = log_lines(node)[-1]
        assert '"kind":"model-calibrated"' in entry
        for name in (study.digest, calibration.run, calibration.result):
            assert name in entry
        node.parts.engine.dispose()
        logged = [entry.encode(), lines.getvalue().encode(), _dump(home / "state.db")]
        kept = [file.read_bytes() for file in home.rglob("*") if file.is_file()]
        assert not [needle for needle in needles for text in (*logged, *kept) if needle in text]
        assert f'"{calibration.patients}"' not in entry
        assert f":{calibration.patients}," not in entry

    def test_nothing_that_sends_knows_the_file(self) -> None:
        """Only the command itself names the folder and its modules, in all that is installed."""
        sources = {
            path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
            for room in ROOMS
            for path in (ROOT / room).rglob("*.py")
        }
        command = {"client/commands/calibrate.py", "client/commands/calibration_file.py"}
        assert {p for p, text in sources.items() if ".calibrations" in text} == command
        assert {p for p, text in sources.items() if NOTICE in text} == {
            "client/commands/calibration_file.py"
        }
        naming = {p: text for p, text in sources.items() if "commands.calibrat" in text}
        using = {p for p, text in naming.items() if _imports_calibration(text)}
        assert using - command == {"client/cli.py", "client/startup.py"}

    def test_the_command_has_no_way_to_send(self) -> None:
        """Neither it nor the fit imports a channel, and its node fetches nothing."""
        modules = ("calibrate", "calibration_file", "calibration_permission")
        for name in (*(f"commands/{each}" for each in modules), "tasks/local_fit"):
            text = (ROOT / "client" / f"{name}.py").read_text(encoding="utf-8")
            for channel in ("channel", "flower", "grpc", "socket", "local_rpc", "logging"):
                assert channel not in " ".join(_imported(text)), name


def _coordinator_keys(documents: FederationDocuments) -> dict[str, SigningKey]:
    return {"document_key": documents.document_key, "online_key": documents.online_key}


def _figures(calibration: Calibration) -> list[str]:
    figures = (
        calibration.intercept,
        calibration.slope,
        calibration.intercept_error,
        calibration.slope_error,
    )
    return [repr(figure)[:9] for figure in figures]


def _dump(database: Path) -> bytes:
    with sqlite3.connect(database) as connection:
        return "\n".join(connection.iterdump()).encode()


def _imported(text: str) -> Iterator[str]:
    for part in ast.walk(ast.parse(text)):
        if isinstance(part, ast.ImportFrom):
            yield part.module or ""
        elif isinstance(part, ast.Import):
            yield from (name.name for name in part.names)


def _imports_calibration(text: str) -> bool:
    return any(module.startswith("client.commands.calibrat") for module in _imported(text))
