"""What a run stands on, fixed by its first message: agreement, countries' keys, versions claimed.

Every request says it, and what a node answers is kept with the very request. So an attempt that
carries a run on says what the first one said, and not what has been published since.
"""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict

from governance.trust.view import TrustedView
from keys.composite import PublicIdentity, Suite, read_identity
from protocols.wire.document_versions import DocumentVersions
from protocols.wire.encoding import Digest
from server.errors import OperationFault


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
        """Return what a run of these countries would stand on today."""
        held, keys = view.versions, {country: view.node_keys(country) for country in roster}
        return cls(
            agreement=view.agreement.digest,
            identities={c: node.identity_key for c, node in keys.items() if node is not None},
            root=held.root,
            targets=held.targets,
            countries=dict(held.countries),
        )

    def peers(self, suite: Suite) -> dict[str, PublicIdentity]:
        """Return what verifies the countries' messages: the keys that the run began with.

        Raises KeyFault where one of them cannot sign as the agreement asks.
        """
        return {c: suite.public(read_identity(key)) for c, key in self.identities.items()}

    @property
    def document_versions(self) -> DocumentVersions:
        """The versions that every request of the run claims."""
        return DocumentVersions(self.root, self.targets, dict(self.countries))


def require_unmoved(kept: RunDocuments, found: RunDocuments) -> None:
    """Raise OperationFault where a run cannot be carried on under the documents of today.

    Newer versions alone are no reason: nodes refuse only what is older than theirs in substance.
    Nor are a node's new keys: a run is signed with those that it began with, to its end.
    """
    if kept.agreement != found.agreement:
        raise _moved("the agreement was amended while the run was interrupted")
    gone = sorted(set(kept.identities) - set(found.identities))
    if gone:
        raise _moved(f"the documents hold no keys of the node of {', '.join(gone)} any more")


def _moved(why: str) -> OperationFault:
    return OperationFault(
        "The run cannot be carried on",
        why=why,
        fix="launch the study again once its countries permit it anew; it is charged again",
    )
