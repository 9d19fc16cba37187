import stat
from pathlib import Path

import pytest

from governance.officer.errors import OfficerFault
from governance.officer.home import DOCUMENT_KEY, Identity, OfficerHome, create_home
from keys.errors import KeyFault
from keys.identity import SigningKey
from keys.store import KeyStore
from tests.support.officers import use_fast_key_stores

WORDS = b"four random words here"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fast_key_stores(monkeypatch)


@pytest.fixture
def home(tmp_path: Path) -> OfficerHome:
    return OfficerHome(tmp_path / "officer")


def test_a_new_folder_has_one_key_and_the_officer_s_settings(home: OfficerHome) -> None:
    settings = create_home(home, "DK", "Health data authority", lambda: WORDS)
    assert home.settings() == settings
    assert home.key_file.read_text() == f"{settings.document_key}\n"
    assert KeyStore.open(home.keys, WORDS).names() == [DOCUMENT_KEY]
    assert Identity.open(home, settings, WORDS).key.public == settings.verify_key


def test_only_its_owner_may_enter(home: OfficerHome) -> None:
    create_home(home, "DK", "Health data authority", lambda: WORDS)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_key_is_nowhere_in_plain_text(home: OfficerHome) -> None:
    settings = create_home(home, "DK", "Health data authority", lambda: WORDS)
    secret = Identity.open(home, settings, WORDS).key.to_bytes()
    for file in filter(Path.is_file, home.path.rglob("*")):
        assert secret not in file.read_bytes()
        assert secret.hex().encode() not in file.read_bytes()


def test_a_second_officer_in_one_folder_is_refused(home: OfficerHome) -> None:
    settings = create_home(home, "DK", "Health data authority", lambda: WORDS)
    with pytest.raises(OfficerFault, match=r"an officer in .* already"):
        create_home(home, "EE", "Another", lambda: b"other words")
    assert home.settings() == settings
    assert Identity.open(home, settings, WORDS)


def test_keys_without_settings_are_not_overwritten(home: OfficerHome) -> None:
    create_home(home, "DK", "Health data authority", lambda: WORDS)
    home.settings_file.unlink()
    with pytest.raises(OfficerFault, match="already"):
        create_home(home, "DK", "Health data authority", lambda: WORDS)


@pytest.mark.parametrize(
    ("country", "authority", "why"),
    [
        ("Denmark", "A", "country cannot be used"),
        ("UK", "A", "country cannot be used"),
        ("dk", "A", "country cannot be used"),
        ("DK", "", "authority cannot be used"),
        ("DK", "two\nlines", "authority cannot be used"),
        ("DK", "\u202ereversed", "authority cannot be used"),
    ],
)
def test_unusable_names_make_no_folder(
    home: OfficerHome, country: str, authority: str, why: str
) -> None:
    with pytest.raises(OfficerFault, match=why):
        create_home(home, country, authority, lambda: WORDS)
    assert not home.path.exists()


def test_an_authority_in_its_own_script_is_kept(home: OfficerHome) -> None:
    create_home(home, "GR", "Υπουργείο Υγείας", lambda: WORDS)
    assert home.settings().authority == "Υπουργείο Υγείας"
    assert "Υπουργείο" in home.settings_file.read_text("utf-8")


def test_a_missing_folder_is_reported_with_what_to_do(home: OfficerHome) -> None:
    with pytest.raises(OfficerFault, match="There is no officer") as fault:
        home.settings()
    assert "keygen" in fault.value.fix


@pytest.mark.parametrize("text", ["", "[]", "country: NOPE\n", "a: [", "x: 1\n", "\x00"])
def test_damaged_settings_are_reported(home: OfficerHome, text: str) -> None:
    create_home(home, "DK", "Health data authority", lambda: WORDS)
    home.settings_file.write_text(text)
    with pytest.raises(OfficerFault, match="cannot be used"):
        home.settings()


def test_a_wrong_passphrase_opens_nothing(home: OfficerHome) -> None:
    settings = create_home(home, "DK", "Health data authority", lambda: WORDS)
    with pytest.raises(KeyFault, match="passphrase"):
        Identity.open(home, settings, b"other words")


def test_a_replaced_key_is_noticed(home: OfficerHome) -> None:
    settings = create_home(home, "DK", "Health data authority", lambda: WORDS)
    KeyStore.open(home.keys, WORDS).put(DOCUMENT_KEY, SigningKey.generate().to_bytes())
    with pytest.raises(OfficerFault, match="is not the one that"):
        Identity.open(home, settings, WORDS)
