"""Read the country's documents as this officer signed them last."""

from datetime import datetime, timedelta

from governance.errors import DocumentFault
from governance.officer.home import OfficerHome, Settings
from governance.trust.bundle import CountryBundle, CountryDocuments, own_country
from governance.trust.signing import OfficerDocuments


def own_documents(home: OfficerHome, settings: Settings) -> OfficerDocuments:
    """Return the folder in which the documents are changed and signed."""
    return OfficerDocuments(home.documents, settings.country)


def read_own(home: OfficerHome, settings: Settings, now: datetime) -> CountryDocuments | None:
    """Return what was signed last, expired or not; None before the first signature.

    Raises DocumentFault if somebody else changed the folder.
    """
    bundle = own_documents(home, settings).bundle(settings.verify_key)
    if bundle is None:
        return None
    end = CountryBundle.from_canonical(bundle).signed().signed.expires
    in_time = min(now, end - timedelta(seconds=1))
    own = own_country(bundle, settings.country, settings.verify_key, in_time)
    if own.fault:
        raise DocumentFault(
            own.fault,
            why="somebody changed the folder, or another version of this program signed them",
            fix="restore the folder from a copy, or sign the named document again",
        )
    return own
