"""Which versions are published, of documents that do not count any more as well.

A country's documents end by themselves, and a view does not hold them then. Whoever held them just
before was not ahead of anybody: the snapshot lists them until the next ones are published.
"""

from tuf.api.metadata import Metadata, Snapshot

from governance.trust.client import METADATA
from governance.trust.layout import role_of
from governance.trust.versions import Versions
from governance.trust.view import TrustedView


def listed_versions(view: TrustedView) -> Versions:
    """Return the versions of root and targets, and of each party's documents in the snapshot."""
    name = f"{METADATA}{view.floor.snapshot}.snapshot.json"
    listed = Metadata[Snapshot].from_bytes(view.files[name]).signed.meta
    roles = {party.country: f"{role_of(party.country)}.json" for party in view.agreement.parties}
    countries = {one: listed[role].version for one, role in roles.items() if role in listed}
    return Versions(view.versions.root, view.versions.targets, countries)
