"""Remembers what was verified, for as long as verifying it again could end no other way.

Verifying documents is a function of the files that were asked for, the pinned root or key, the
floor and the clock. The result is used again only where the first three are the same to the last
byte, and the clock has moved forward, not back, and not up to the first expiry of anything that was
read; where the floor's latest time is ahead of the clock, it was so before. Metadata accepted at
one moment are then neither issued in the future nor expired. A view in which a country is absent is
never remembered: time alone may bring it back.
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
class _Spell:
    """From when to when, on the clock, a result stands."""

    start: datetime
    expiry: datetime

    def holds(self, clock: datetime) -> bool:
        """Whether the result made at the start is that of now."""
        return timedelta(0) <= clock - self.start < LONGEST and clock < self.expiry


@dataclass(frozen=True)
class _SeenView:
    view: TrustedView
    asked: Mapping[str, bytes | None]
    root: bytes
    high_water: TrustHighWater
    spell: _Spell


class ViewCache:
    """The last view of one reader. Safe among threads: what they see is one whole view."""

    def __init__(self) -> None:
        self._seen: _SeenView | None = None

    def view(
        self,
        fetch: Fetch,
        pinned_root: bytes,
        now: datetime,
        high_water: TrustHighWater = NOTHING_SEEN,
    ) -> TrustedView:
        """Return what `TrustedView.load` would. Raises DocumentFault as it does."""
        seen = self._seen
        if seen is not None and _stands(seen, fetch, pinned_root, now, high_water):
            return replace(seen.view, now=high_water.raised_to(now))
        return self._loaded(fetch, pinned_root, now, high_water)

    def _loaded(
        self, fetch: Fetch, pinned_root: bytes, now: datetime, high_water: TrustHighWater
    ) -> TrustedView:
        asked: dict[str, bytes | None] = {}

        def recorded(name: str) -> bytes | None:
            asked[name] = fetch(name)
            return asked[name]

        self._seen = None
        view = TrustedView.load(recorded, pinned_root, now, high_water)
        if not view.absent:
            spell = _Spell(now, view.unchanged_until)
            self._seen = _SeenView(view, asked, pinned_root, high_water, spell)
        return view


def _stands(
    seen: _SeenView, fetch: Fetch, pinned_root: bytes, now: datetime, high_water: TrustHighWater
) -> bool:
    same = (seen.root, seen.high_water) == (pinned_root, high_water)
    fresh = same and seen.spell.holds(now)
    return fresh and all(fetch(name) == data for name, data in seen.asked.items())


@dataclass(frozen=True)
class _SeenCountry:
    documents: CountryDocuments
    source: tuple[bytes, str, str]
    spell: _Spell


class CountryCache:
    """The last own documents of one reader. Safe among threads."""

    def __init__(self) -> None:
        self._seen: _SeenCountry | None = None

    def country(
        self, bundle: bytes, country: str, pinned: VerifyKey, now: datetime
    ) -> CountryDocuments:
        """Return what `own_country` would. Raises DocumentFault as it does."""
        seen, source = self._seen, (bundle, country, pinned.to_text())
        if seen is not None and seen.source == source and seen.spell.holds(now):
            return seen.documents
        self._seen = None
        documents = own_country(bundle, country, pinned, now)
        self._seen = _SeenCountry(documents, source, _Spell(now, documents.expires))
        return documents
