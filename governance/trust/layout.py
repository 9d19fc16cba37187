"""Who signs what: the TUF roles, keys and paths that an agreement implies.

Root and targets metadata are computed from the agreement, never edited. Officers compute them
again before they sign, and so does every reader, so a coordinator cannot add anything.
"""

import re
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from governance.documents.agreement import Agreement
from governance.errors import DocumentFault
from keys.identity import SigningKey, VerifyKey

FIRST_ROOT = "metadata/1.root.json"
"""The name of the first root: every verification starts from it."""

AGREEMENT_PATH = "agreement.json"
COORDINATOR_ROLE = "coordinator"
PARTY_FIELD = "x-pratique-party"
"""A key's field that names its party. The root signs it, and so binds a new key to a country."""
SIGNED_AT_FIELD = "x-pratique-signed-at"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

TOP_LIFE = timedelta(days=365)
"""Life of root and targets. The countries sign again each year, or when a key changes."""
COUNTRY_LIFE = timedelta(days=7)
TIMESTAMP_LIFE = timedelta(hours=24)
SNAPSHOT_LIFE = timedelta(days=7)
CLOCK_SKEW = timedelta(minutes=10)
"""A signature from later than this is refused: it would move the reference time forward."""

_HEX = "[0-9a-f]{64}"


def role_of(country: str) -> str:
    """Return the name of a country's role."""
    return f"country-{country}"


def permit_path(country: str, study: str) -> str:
    """Return the path of the country's permit for the study with this digest."""
    return f"{role_of(country)}/permits/{study.removeprefix('sha256:')}.json"


def withdrawal_path(country: str, study: str) -> str:
    """Return the path of the country's withdrawal of the study with this digest."""
    return f"{role_of(country)}/withdrawals/{study.removeprefix('sha256:')}.json"


def node_path(country: str) -> str:
    """Return the path of the country's node keys."""
    return f"{role_of(country)}/node.json"


def policy_path(country: str) -> str:
    """Return the path of the country's own policy."""
    return f"{role_of(country)}/policy.cedar"


def history_path(country: str) -> str:
    """Return the path of the history of the country's document key."""
    return f"{role_of(country)}/keys.json"


def is_country_path(country: str, path: str) -> bool:
    """Whether a country's role may list this path."""
    kinds = rf"(node\.json|keys\.json|policy\.cedar|(permits|withdrawals)/{_HEX}\.json)"
    return bool(re.fullmatch(rf"{role_of(country)}/{kinds}", path))


def tuf_key(key: VerifyKey, party: str) -> SSlibKey:
    """Return a document key in the form of TUF metadata, with the name of its party."""
    public = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(key.raw))
    public.unrecognized_fields[PARTY_FIELD] = party
    return public


def key_id(key: VerifyKey) -> str:
    """Return the key's id in TUF metadata: 64 hexadecimal digits."""
    return str(tuf_key(key, "").keyid)


def signer(key: SigningKey) -> CryptoSigner:
    """Return the key in the form with which python-tuf signs."""
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(key.to_bytes()))


def party_keys(agreement: Agreement) -> dict[str, SSlibKey]:
    """Return each country's document key, by country."""
    return {
        party.country: tuf_key(VerifyKey.from_text(party.officer_key), role_of(party.country))
        for party in sorted(agreement.parties, key=lambda party: party.country)
    }


def top_expiry(agreement: Agreement, signed_at: datetime) -> datetime:
    """Return when root and targets end: after a year, and never after the agreement."""
    return min(agreement.sunset, signed_at + TOP_LIFE)


def build_root(agreement: Agreement, version: int, signed_at: datetime) -> Root:
    """Return the root that the agreement implies: m of n country keys, and the online key."""
    countries = list(party_keys(agreement).values())
    online = tuf_key(VerifyKey.from_text(agreement.coordinator.online_key), COORDINATOR_ROLE)
    offline = Role([key.keyid for key in countries], agreement.amendment_threshold)
    daily = Role([online.keyid], 1)
    return Root(
        version=version,
        expires=top_expiry(agreement, signed_at),
        keys={key.keyid: key for key in (*countries, online)},
        roles={
            Root.type: offline,
            Targets.type: offline,
            Snapshot.type: daily,
            Timestamp.type: daily,
        },
        consistent_snapshot=True,
        unrecognized_fields=signed_field(signed_at),
    )


def build_targets(agreement: Agreement, version: int, signed_at: datetime) -> Targets:
    """Return the targets that the agreement implies: itself, and one role for each party."""
    return Targets(
        version=version,
        expires=top_expiry(agreement, signed_at),
        targets={AGREEMENT_PATH: TargetFile.from_data(AGREEMENT_PATH, agreement.canonical())},
        delegations=_delegations(agreement),
        unrecognized_fields=signed_field(signed_at),
    )


def _delegations(agreement: Agreement) -> Delegations:
    keys = party_keys(agreement)
    document_key = VerifyKey.from_text(agreement.coordinator.document_key)
    coordinator = tuf_key(document_key, COORDINATOR_ROLE)
    # `*` does not match a slash
    roles = {role_of(c): _role(role_of(c), key, _country_patterns(c)) for c, key in keys.items()}
    roles[COORDINATOR_ROLE] = _role(COORDINATOR_ROLE, coordinator, ["studies/*", "releases/*"])
    return Delegations({key.keyid: key for key in (*keys.values(), coordinator)}, roles)


def _country_patterns(country: str) -> list[str]:
    role = role_of(country)
    return [f"{role}/*", f"{role}/permits/*", f"{role}/withdrawals/*"]


def _role(name: str, key: Key, paths: list[str]) -> DelegatedRole:
    return DelegatedRole(name, [key.keyid], 1, terminating=True, paths=paths)


def signed_field(moment: datetime) -> dict[str, str]:
    """Return the field of metadata that says when it was signed."""
    return {SIGNED_AT_FIELD: moment.astimezone(UTC).strftime(TIME_FORMAT)}


def signed_at(signed: Signed) -> datetime:
    """Return the time at which metadata were signed. Raises DocumentFault if it is missing."""
    text = signed.unrecognized_fields.get(SIGNED_AT_FIELD)
    try:
        return datetime.strptime(str(text), TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise DocumentFault(
            f"The {signed.type} metadata do not say when they were signed",
            why=f"the field {SIGNED_AT_FIELD} is missing or is not a time",
            fix="sign them again with this software",
        ) from None
