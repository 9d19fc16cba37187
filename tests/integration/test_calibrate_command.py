"""`pratique-node calibrate` as a program: before, beside and after the node's daemon."""

import json
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from governance.documents.permit import PermitConditions
from governance.documents.study import Study
from tests.integration.test_node_daemon import Site
from tests.support.documents import permit, study
from tests.support.exchange_server import now
from tests.support.programs import run_program, words
from tests.support.released_models import released, shifted_rows, trained
from tests.support.waiting import WAIT_SECONDS

ENVIRONMENT = {"COLUMNS": "1000", "PYTHONUTF8": "1"}


class CalibratingSite(Site):
    """A site with the commands of the working tree, and a study that its officer permits."""

    def command(self, *arguments: str, unlock: bool = True) -> list[str]:
        secret = ["--passphrase-file", str(self.passphrase)] if unlock else []
        options = [*arguments, "--home", str(self.home.path), *secret]
        return [str(word) for word in words("pratique-node", *options)]

    def permitted(self) -> Study:
        """Propose a study around now, and have the officer permit its calibration."""
        moment = self.documents.now
        dates = {"created": moment - timedelta(days=1), "expires": moment + timedelta(days=60)}
        proposed = study(self.documents.agreed, **trained(), **dates)
        self.documents.propose(proposed)
        conditions = PermitConditions(expires=moment + timedelta(days=30), calibrate=True)
        granted = permit(self.documents.agreed, proposed, conditions=conditions, issued=moment)
        self.documents.folders["DK"].approve(granted)
        bundle = self.documents.sign_and_submit("DK")
        (self.home.officer / "country-DK-2.json").write_bytes(bundle)
        rows = "\n".join(["id,age,sex,disease", *shifted_rows(proposed)])
        self.home.settings().data.write_text(rows + "\n")
        return proposed

    def calibrate(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        secret = ("--passphrase-file", self.passphrase)
        where = ("--home", self.home.path)
        return run_program(
            "pratique-node", "calibrate", *arguments, *where, *secret, env=ENVIRONMENT
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CalibratingSite]:
    opened = CalibratingSite(tmp_path)
    yield opened
    opened.close()


@pytest.mark.slow
def test_before_beside_and_after_the_daemon(site: CalibratingSite, tmp_path: Path) -> None:
    proposed = site.permitted()
    until = now() + timedelta(days=300)
    result = released(proposed, tmp_path / "result", keep_until=f"{until:%Y-%m-%dT%H:%M:%SZ}")
    early = site.calibrate(str(result))
    assert early.returncode == 1, early.stdout
    assert b"Traceback" not in early.stderr
    daemon = site.up()
    site.wait_until(lambda: proposed.id in json.dumps(site.status().get("studies", "")))
    beside = site.calibrate(str(result))
    assert beside.returncode == 0, beside.stderr
    file = site.home.calibrations / proposed.id / "calibration.json"
    fields = json.loads(file.read_text())
    for figure in (fields["intercept"], fields["slope"], fields["patients"]):
        assert str(figure)[:8].encode() not in beside.stdout + beside.stderr
        assert str(figure)[:8] not in site.log or isinstance(figure, int)
    assert file.stat().st_mode & 0o777 == 0o600
    again = site.calibrate(str(result))
    assert again.returncode == 1
    assert b"exists already" in again.stderr
    daemon.terminate()
    assert daemon.wait(WAIT_SECONDS) == 0
    after = site.calibrate(str(result), "--out", str(tmp_path / "after.json"))
    assert after.returncode == 0, after.stderr
    same = json.loads((tmp_path / "after.json").read_text())
    assert {**same, "calibrated": ""} == {**fields, "calibrated": ""}
