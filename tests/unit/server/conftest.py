"""Fixtures of the server's tests: a coordinator's state and its transport authority."""

from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from governance.runtime.database import open_database
from keys.certificates import TransportAuthority
from server.membership.enrolment import EnrolmentService
from server.state.tables import MIGRATIONS
from tests.support.enrolling import enrolment_of
from tests.support.exchange_server import now


@pytest.fixture(scope="session")
def authority() -> TransportAuthority:
    return TransportAuthority.create("danube", now())


@pytest.fixture
def moment() -> datetime:
    return now()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(tmp_path / "state.db", MIGRATIONS)


@pytest.fixture
def enrolment(engine: Engine, authority: TransportAuthority) -> EnrolmentService:
    return enrolment_of(engine, authority)
