"""Settings are valid, or are refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from client.settings import Enrolment, NodeSettings
from protocols.wire.encoding import digest
from tests.support.documents import raw_key

FIELDS: dict[str, Any] = {
    "country": "DK",
    "data": "records.csv",
    "dictionary": "dictionary.yaml",
    "officer_key": raw_key(1).public.to_text(),
}


def test_omitted_settings_have_safe_defaults() -> None:
    settings = NodeSettings.model_validate(FIELDS)
    assert settings.data == Path("records.csv")
    assert (settings.observe, settings.log_file, settings.enrolment) == (None, None, None)
    assert settings.modules == ()


def test_settings_are_read_back_unchanged() -> None:
    enrolment = Enrolment(
        federation="danube",
        exchange="exchange.example:7443",
        authority_digest=digest(b"a"),
        root_digest=digest(b"r"),
    )
    settings = NodeSettings.model_validate(FIELDS | {"enrolment": enrolment, "opt_out": "out.txt"})
    assert NodeSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    "changes",
    [
        {"country": "Denmark"},
        {"officer_key": "ed25519:none"},
        {"person_register": "../patients"},
        {"observe": "0.0.0.0:9464"},
        {"modules": ["os.path"]},
        {"noise": "zero"},
        {"data": None},
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NodeSettings.model_validate(FIELDS | changes)
