from datetime import timedelta

import pytest

from governance.trust import signing
from governance.trust.listed import listed_versions
from tests.support.documents import COUNTRIES, Papers


def test_while_all_documents_count_those_listed_are_those_held(full: Papers) -> None:
    view = full.view()
    assert set(view.versions.countries) == set(COUNTRIES)
    assert listed_versions(view) == view.versions


def test_documents_that_have_ended_are_listed_still(
    full: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = full.view().versions
    with monkeypatch.context() as patch:
        patch.setattr(signing, "COUNTRY_LIFE", timedelta(minutes=1))
        full.give("PT")
    full.now += timedelta(minutes=2)
    view = full.view()
    assert "PT" not in view.versions.countries
    assert listed_versions(view).countries == {
        **before.countries,
        "PT": before.countries["PT"] + 1,
    }
