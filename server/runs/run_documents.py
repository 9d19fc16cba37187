"""The documents that a run is based on: agreement, countries' keys, and the versions it claims.

The run's first attempt fixes them, because every request claims them and a node's answer is kept
with its request. So every later attempt claims the same, and not what was published since.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict

from governance.trust.view import TrustedView
from keys.composite import PublicIdentity, Suite, read_identity
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import Digest
from server.errors import CoordinatorFault


class RunDocuments(BaseModel):
    """The documents of a run: agreement, identity key by country, and the versions claimed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    agreement: Digest
    identities: Mapping[str, str]
    root: int
    targets: int
    countries: Mapping[str, int]

    @classmethod
    def of(cls, view: TrustedView, roster: tuple[str, ...]) -> Self:
        """Return the documents on which a run of these countries would be based now."""
        versions = view.versions
        nodes = {country: view.node_keys(country) for country in roster}
        return cls(
            agreement=view.agreement.digest,
            identities={
                country: node.identity_key for country, node in nodes.items() if node is not None
            },
            root=versions.root,
            targets=versions.targets,
            countries=dict(versions.countries),
        )

    def peers(self, suite: Suite) -> dict[str, PublicIdentity]:
        """Return the keys that verify the countries' messages: those of the run's beginning.

        Raises KeyFault if one of them cannot sign in the agreement's suite.
        """
        return {
            country: suite.public(read_identity(key)) for country, key in self.identities.items()
        }

    @property
    def document_versions(self) -> DocumentVersions:
        """The versions that every request of the run claims."""
        return DocumentVersions(self.root, self.targets, dict(self.countries))


def require_resumable(kept: RunDocuments, current: RunDocuments) -> None:
    """Raise CoordinatorFault if a run cannot be resumed under the current documents.

    Newer versions alone do not prevent it: nodes refuse only documents that are older than theirs
    in substance. A node's new keys do not prevent it either: a run's messages are signed to its
    end with the keys of its beginning.
    """
    if kept.agreement != current.agreement:
        raise _not_resumable("the agreement was amended while the run was interrupted")
    gone = sorted(set(kept.identities) - set(current.identities))
    if gone:
        raise _not_resumable(
            f"the documents no longer contain keys of the node of {', '.join(gone)}"
        )


def _not_resumable(why: str) -> CoordinatorFault:
    return CoordinatorFault(
        "The run cannot be resumed",
        why=why,
        fix="launch the study again once its countries have permitted it again; it is charged "
        "again",
    )
