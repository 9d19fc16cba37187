"""Every parser of bytes from outside, with inputs to begin from.

A target is called with any bytes. It returns, or it raises a PratiqueError: the refusal that its
callers expect. Any other exception, a crash, or a call of more than some seconds is a fault.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.supercore.inflatable.inflatable_object import get_object_id

from client.flower_client import _unpack
from client.records.dictionary import read_dictionary
from client.records.opt_outs import read_opt_outs
from governance.audit.note import NoteKey, parse_note, sign_note
from governance.audit.verify import verify_export
from governance.cedar.engine import check_national
from governance.cedar.texts import BASE_POLICY
from governance.documents.agreement import Agreement
from governance.documents.models import Document
from governance.documents.permit import Permit
from governance.documents.reading import read_document
from governance.documents.study import Study
from governance.trust.bundle import CountryBundle, own_country, read_targets_metadata
from governance.trust.ceremony import read_root
from governance.trust.layout import node_path, permit_path, policy_path
from keys.certificates import Role, TransportAuthority, new_transport_key, peer_of, public_pem
from keys.identity import SigningKey, VerifyKey
from keys.pem import parse_certificates, parse_public_key
from protocols.private_sum.messages import read_contribution, read_reply, read_request
from protocols.private_sum.setup import read_bundle
from protocols.wire.flower_frame import FLEET_CALLS
from protocols.wire.invitation import Invitation, Statement
from server.exchange.fleet_requests import parse_request
from server.flower.bundle_guard import check_bundle
from tests.support.document_samples import AGREED, ASKED, BUNDLE, DRAFT, KEY, METADATA, SAMPLES
from tests.support.documents import DAY, NOW, country_metadata, node_keys, permit

WRITTEN_BY_PEOPLE: tuple[type[Document], ...] = (Agreement, Study, Permit)
LOG_KEY = NoteKey("fuzz", SigningKey.generate().public)
AUTHORITY = TransportAuthority.create("fuzz", NOW)
TRANSPORT_KEY = new_transport_key()
SIZE = 64
DICTIONARY = b"""dictionary: 1
title: Patients
patient: id
features:
  - {name: age, type: numeric, bounds: [0, 120]}
  - {name: sex, type: categorical, codes: {F: female, M: male}}
"""


@dataclass(frozen=True)
class Target:
    """One parser, and valid inputs for it."""

    parse: Callable[[bytes], object]
    seeds: tuple[bytes, ...] = (b"",)


def _bundle_of(path: str, content: bytes) -> object:
    """Read a country's bundle that has these bytes at the path, with a valid signature."""
    metadata, _ = country_metadata(KEY, {path: content})
    text = content.decode(errors="replace")
    bundle = CountryBundle(country="DK", metadata=metadata.decode(), targets={path: text})
    return own_country(bundle.canonical(), "DK", KEY.public, NOW)


def _at_path(path: str, *seeds: bytes) -> Target:
    return Target(partial(_bundle_of, path), seeds)


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode(errors="surrogateescape"))


def _file(parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a parser of bytes that writes them to a file, since `parse` reads a file."""
    folder = TemporaryDirectory(prefix="fuzz")
    path = Path(folder.name) / "file"

    def read(data: bytes, _folder: TemporaryDirectory[str] = folder) -> object:
        path.write_bytes(data)
        return parse(path)

    return read


def _zipped(text: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("pyproject.toml", text)
    return archive.getvalue()


def _log(data: bytes) -> object:
    checkpoint, _, lines = data.partition(b"\0")
    return verify_export(lines.splitlines(), checkpoint, LOG_KEY)


def _certificate(data: bytes) -> object:
    return peer_of(data, authority_pem=AUTHORITY.certificate_pem, now=NOW, revoked=())


def _documents() -> Iterator[tuple[str, Target]]:
    for sample in SAMPLES:
        kind = type(sample)
        yield f"{kind.__name__} document", Target(kind.from_canonical, (sample.canonical(),))
    for kind in WRITTEN_BY_PEOPLE:
        seeds = tuple(s.canonical() for s in SAMPLES if isinstance(s, kind))
        read = partial(read_document, kind, source="file.yaml")
        yield f"{kind.__name__} file", Target(read, seeds)


def _fleet_calls() -> Iterator[tuple[str, Target]]:
    for method in sorted(FLEET_CALLS):
        yield f"Fleet call {method}", Target(partial(parse_request, method))


TARGETS: dict[str, Target] = {
    **dict(_documents()),
    "country bundle": Target(
        lambda data: own_country(data, "DK", KEY.public, NOW), (BUNDLE.canonical(),)
    ),
    "role metadata": Target(read_targets_metadata, (METADATA,)),
    "root metadata": Target(read_root, (DRAFT.root().to_bytes(), METADATA)),
    "national policy in a bundle": _at_path(policy_path("DK"), BASE_POLICY.encode()),
    "node keys in a bundle": _at_path(node_path("DK"), node_keys("DK").canonical()),
    "permit in a bundle": _at_path(
        permit_path("DK", ASKED.digest), permit(AGREED, ASKED).canonical()
    ),
    "Cedar text": Target(
        _text(check_national),
        (BASE_POLICY.encode(), b'@id("a") forbid (principal, action, resource);'),
    ),
    "request of the coordinator": Target(read_request),
    "reply of a country": Target(lambda data: read_reply(data, "DK", "bundle")),
    "contribution of a country": Target(lambda data: read_contribution(data, "DK", SIZE)),
    "key bundle of a country": Target(read_bundle),
    "invitation": Target(Invitation.from_bytes),
    "statement of an applicant": Target(Statement.from_bytes),
    "certificate": Target(
        _certificate,
        (
            AUTHORITY.certificate_pem,
            AUTHORITY.issue(
                public_pem(TRANSPORT_KEY), country="DK", role=Role.NODE, now=NOW, lifetime=DAY
            ),
        ),
    ),
    "authorities": Target(parse_certificates, (AUTHORITY.certificate_pem,)),
    "public key, PEM": Target(parse_public_key, (public_pem(TRANSPORT_KEY),)),
    "public key, text": Target(_text(VerifyKey.from_text), (KEY.public.to_text().encode(),)),
    "Flower bundle": Target(check_bundle, (_zipped("[project]\n"),)),
    "object of Flower": Target(lambda data: _unpack(data, get_object_id(data))),
    "signed note": Target(parse_note, (sign_note("fuzz\n1\nAAAA\n", "fuzz", KEY),)),
    "log key": Target(_text(NoteKey.from_text), (LOG_KEY.to_text().encode(),)),
    "exported log": Target(_log),
    "data dictionary": Target(_file(read_dictionary), (DICTIONARY,)),
    "opt-out list": Target(_file(read_opt_outs), (b"p1\np2\n",)),
}
"""The parsers by name."""
