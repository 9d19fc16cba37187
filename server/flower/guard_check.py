"""Proves, at each start of Flower, that the bundle guard refuses a bundle with code in it.

The bundle is harmless: its code only makes a file, in a folder of ours. It goes to the SuperLink as
a stranger's would. Whatever in Flower, Python or the machine would bypass the guard, this shows it
before a node is connected.
"""

import hashlib
import os
import ssl
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from flwr.proto.control_pb2 import (
    ListRunsRequest,
    ListRunsResponse,
    StartRunRequest,
    StartRunResponse,
)
from flwr.proto.fab_pb2 import Fab

from server.errors import CoordinatorFault
from server.flower.bundle_guard import CONFIGURATION, REFUSED
from server.flower.superlink import SuperLink

SECONDS = 60.0
"""How long Flower may take to refuse the bundle; it takes two seconds on an idle machine."""
PAUSE_SECONDS = 0.05
CALL_SECONDS = 10.0
MARKER = "code-ran"
_PROTOBUF = {"content-type": "application/protobuf", "accept": "application/protobuf"}
_CODE = """\
open({marker!r}, "w").close()
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
app, other = ServerApp(), ClientApp()
"""
_PROJECT = """\
[project]
name = "guard-check"
version = "1.0.0"
description = "Must be refused: it holds code."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "pratique"

[tool.flwr.app.components]
serverapp = "forbidden:app"
clientapp = "forbidden:other"

[tool.flwr.app.config]
"""


def forbidden_bundle(marker: Path) -> bytes:
    """Return a bundle that Flower would run, and whose code makes the file `marker`."""
    from flwr.cli.build import build_fab_from_files  # noqa: PLC0415 (takes half a second)

    code = _CODE.format(marker=os.fspath(marker)).encode()
    return bytes(build_fab_from_files({CONFIGURATION: _PROJECT.encode(), "forbidden.py": code})[0])


def require_guard(link: SuperLink, seconds: float = SECONDS) -> None:
    """Submit a forbidden bundle. Raises CoordinatorFault unless the guard refuses it."""
    with tempfile.TemporaryDirectory(dir=link.home) as folder:
        marker = Path(folder) / MARKER
        try:
            details = _outcome(link, forbidden_bundle(marker), marker, seconds)
        except httpx.HTTPError as error:
            raise _unproved(f"Flower does not answer ({type(error).__name__})") from error
        if marker.exists():
            raise _unproved("code of a bundle was executed")
    if REFUSED not in details:
        raise _unproved(f"a bundle with code in it ended otherwise: {details[:300]}")


def _outcome(link: SuperLink, bundle: bytes, marker: Path, seconds: float) -> str:
    """Return what Flower says about the run of this bundle when it has ended, or made `marker`."""
    deadline = time.monotonic() + seconds
    with _client(link) as client:
        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        started = _call(client, "start-run", StartRunRequest(fab=fab))
        run = StartRunResponse.FromString(started).run_id
        while time.monotonic() < deadline and not marker.exists():
            answer = _call(client, "list-runs", ListRunsRequest(run_id=run))
            status = ListRunsResponse.FromString(answer).run_dict[run].status
            if status.status == "finished":
                return str(status.details or status.sub_status)
            time.sleep(PAUSE_SECONDS)
    return f"it had not ended after {seconds:.0f} seconds"


def _client(link: SuperLink) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=os.fspath(link.root_certificate))
    return httpx.Client(
        base_url=f"https://{link.address}", verify=trusted, trust_env=False, timeout=CALL_SECONDS
    )


def _call(client: httpx.Client, name: str, request: Any) -> bytes:
    answer = client.post(
        f"/v1/control/{name}", content=request.SerializeToString(), headers=_PROTOBUF
    )
    return answer.raise_for_status().content


def _unproved(why: str) -> CoordinatorFault:
    return CoordinatorFault(
        "The guard against foreign code in Flower's bundles does not work here",
        why=why,
        fix="the exchange stays closed; read superexec.log in the coordinator's home, install "
        "Pratique again from its lock files, and start `up` again",
    )
