"""Cache verified documents, for as long as a new verification would have the same result.

Verification depends on the files that were read, the pinned root or key, the high-water mark and
the clock. A result is used again only if the first three are the same, byte for byte, and the clock
has not moved back and has not reached the first expiry of anything that was read. If the latest
time of the high-water mark is ahead of the clock, it was so before too. So metadata that were
accepted are still neither issued in the future nor expired. A view in which a country has no
documents is never cached: the country may come back with time alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from governance.trust.bundle import CountryDocuments, own_country
from governance.trust.client import Fetch
from governance.trust.high_water import TrustHighWater
from governance.trust.view import NOTHING_SEEN, TrustedView
from keys.identity import VerifyKey

LONGEST = timedelta(minutes=1)
"""Everything is verified again this often, whatever has changed."""


@dataclass(frozen=True)
class _Validity:
    """From when to when, on the clock, a result is valid."""

    start: datetime
    expiry: datetime

    def holds(self, clock: datetime) -> bool:
        """Whether the result is still valid."""
        return timedelta(0) <= clock - self.start < LONGEST and clock < self.expiry


@dataclass(frozen=True)
class _SeenView:
    view: TrustedView
    files: Mapping[str, bytes | None]
    root: bytes
    high_water: TrustHighWater
    validity: _Validity


class ViewCache:
    """Caches the last view of one reader. Thread-safe: each thread gets one whole view."""

    def __init__(self) -> None:
        self._seen: _SeenView | None = None

    def view(
        self,
        fetch: Fetch,
        pinned_root: bytes,
        now: datetime,
        high_water: TrustHighWater = NOTHING_SEEN,
    ) -> TrustedView:
        """Return the same as `TrustedView.load`. Raises DocumentFault as it does."""
        seen = self._seen
        if seen is not None and _is_current(seen, fetch, pinned_root, now, high_water):
            return replace(seen.view, now=high_water.later_of(now))
        return self._loaded(fetch, pinned_root, now, high_water)

    def _loaded(
        self, fetch: Fetch, pinned_root: bytes, now: datetime, high_water: TrustHighWater
    ) -> TrustedView:
        files: dict[str, bytes | None] = {}

        def recorded(name: str) -> bytes | None:
            files[name] = fetch(name)
            return files[name]

        self._seen = None
        view = TrustedView.load(recorded, pinned_root, now, high_water)
        if view.absent.keys() <= view.countries.keys():
            validity = _Validity(now, view.unchanged_until)
            self._seen = _SeenView(view, files, pinned_root, high_water, validity)
        return view


def _is_current(
    seen: _SeenView, fetch: Fetch, pinned_root: bytes, now: datetime, high_water: TrustHighWater
) -> bool:
    same = (seen.root, seen.high_water) == (pinned_root, high_water)
    fresh = same and seen.validity.holds(now)
    return fresh and all(fetch(name) == data for name, data in seen.files.items())


@dataclass(frozen=True)
class _SeenCountry:
    documents: CountryDocuments
    source: tuple[bytes, str, str]
    validity: _Validity


class CountryCache:
    """Caches the documents of one reader's own country. Thread-safe."""

    def __init__(self) -> None:
        self._seen: _SeenCountry | None = None

    def country(
        self, bundle: bytes, country: str, pinned: VerifyKey, now: datetime
    ) -> CountryDocuments:
        """Return the same as `own_country`. Raises DocumentFault as it does."""
        seen, source = self._seen, (bundle, country, pinned.to_text())
        if seen is not None and seen.source == source and seen.validity.holds(now):
            return seen.documents
        self._seen = None
        documents = own_country(bundle, country, pinned, now)
        self._seen = _SeenCountry(documents, source, _Validity(now, documents.expires))
        return documents
