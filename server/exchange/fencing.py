"""Decides which machine acts for a node if several present its identity: the connected one.

A copy of a node's folder has the node's keys and certificate, so no signature distinguishes the
two. The session does: a secret of one running process, which is on no disk. It works as follows:

- *One session acts.* Every call shows its session. Calls of any other that change something for
  the node are refused, and it has calls and connections of its own (`rank`). So a copy gets no
  message, renews no certificate, ends nobody and uses up nothing.
- *Whoever is connected stays.* A sign-in with another session waits while the former one may be
  alive: it called lately, and its connection was not lost. If it goes on calling, the newcomer is
  a copy. If it does not, the newcomer is a restart and takes over, at once if the node signed off
  or its connection broke.
- *A predecessor that returns* has a session that acted before the present one, whatever that one
  states. A process that runs was not restarted, so every session that acted after it was a copy.
  The predecessor must have called again after an answer: a call that was only late proves nothing.
  Nothing that later sessions do makes the first call forgotten, or comes before the second one.
- *Equal or lower.* A restart has a higher incarnation. A session without one that finds nobody is
  admitted, since a restored backup looks the same, but it is reported.
- *In a dispute* the place of a session that ended is kept free for its own restart, which names it
  as the start before and has a higher number. All others wait, in whatever session they call.

Each of these is a dispute. It is reported to both machines and logged once, and lasts until the
node's certificates are revoked. Time is in seconds of a monotonic clock.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol, TypeVar

from server.membership.acting_sessions import ActingSession

LIVE_SECONDS = 8.0
"""How long after its last call a session counts as alive; a connected node calls every 5 s."""
PROOF_SECONDS = 4.0
"""How long after another sign-in a call of the former session must come, to count as proof that it
lives: longer than a call of a process that has ended may be on its way."""
KEPT_FREE_SECONDS = 45.0
"""How long, in a dispute, the place of a session that ended is kept for its own restart."""
MOST_COPIES = 16
"""How many copies and waiting sessions of one node are remembered."""
MOST_EARLIER = 1_024
"""How many sessions that acted before are remembered. A copy needs more than an hour to begin as
many, since `server.exchange.relay_session` limits its sign-ins."""
V = TypeVar("V")


class Rank(Enum):
    """What the session of a call is for the node in whose name it calls."""

    ACTS = "acts"
    FORMER = "former"
    """It acted before."""
    LIKELY = "likely"
    """It calls from the address of the session that acts: perhaps a restart."""
    OTHER = "other"


@dataclass(frozen=True)
class Claim:
    """What a session may claim, and of those that acted before, how many acted before it.

    The fewer, the better: if it still runs, the later ones were copies.
    """

    rank: Rank
    before: int = 0


ACTS = Claim(Rank.ACTS)


class Standing(Enum):
    """What a sign-in gets."""

    ADMITTED = "admitted"
    WAITS = "waits"
    COPY = "copy"


@dataclass(frozen=True)
class SignIn:
    """What a node shows when it signs in; see `protocols/proto/exchange.proto`."""

    session: bytes
    incarnation: int
    former: bytes

    def follows(self, session: ActingSession) -> bool:
        """Return whether it says that it is the restart of this session."""
        return self.incarnation > session.incarnation and self.former == session.key


class SessionStore(Protocol):
    """Stores the acting sessions, so that a restarted coordinator knows them."""

    def load(self) -> Iterable[ActingSession]:
        """Return the stored sessions."""

    def save(self, session: ActingSession) -> None:
        """Store the session of a country in place of its former one."""

    def forget(self, country: str) -> None:
        """Delete the session of a country."""


class NoStore:
    """A store that keeps nothing: each start of the coordinator begins without any."""

    def load(self) -> Iterable[ActingSession]:
        """Return nothing."""
        return ()

    def save(self, session: ActingSession) -> None:
        """Keep nothing."""

    def forget(self, country: str) -> None:
        """Keep nothing."""


@dataclass
class _Place:
    """A country's acting session, when it last called, and the other sessions that want to act."""

    session: ActingSession
    heard: float
    gone: bool = False
    """Whether it signed off, or its connection broke."""
    waiting: dict[bytes, float] = field(default_factory=dict)
    """When each other session first asked."""
    copies: dict[bytes, None] = field(default_factory=dict)
    returned: set[bytes] = field(default_factory=set)
    """The predecessors that were asked to sign in again; no more than `session.earlier` has."""
    address: str = ""
    """From where the acting session called last."""

    def alive(self, now: float) -> bool:
        return not self.gone and now - self.heard < LIVE_SECONDS

    def kept_free(self, key: bytes, asked: SignIn, now: float) -> bool:
        """Return whether the place is kept for another one than this, for a while."""
        restarts = key not in self.copies and asked.follows(self.session)
        recent = now - self.heard < KEPT_FREE_SECONDS
        return self.session.disputed and recent and not restarts

    def note_copy(self, key: bytes) -> None:
        self.waiting.pop(key, None)
        _note(self.copies, key, None)


class Fence:
    """The acting sessions of all nodes. Use it in one thread only."""

    def __init__(
        self,
        store: SessionStore | None = None,
        *,
        on_dispute: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_dispute` takes the country whose node's identity two machines have, once."""
        self._store: SessionStore = store or NoStore()
        self._on_dispute, self._clock = on_dispute, clock
        now = clock()
        self._places = {each.country: _Place(each, now) for each in self._store.load()}

    def sign_in(self, country: str, asked: SignIn) -> Standing:
        """Decide about a sign-in, and remember it."""
        place, key, now = self._places.get(country), session_key(asked.session), self._clock()
        if place is None or key == place.session.key:
            return self._admit(country, key, asked, _earlier(place, key, asked))
        if key in place.session.earlier:
            return self._returning(place, key, asked)
        if place.alive(now) or place.kept_free(key, asked, now):
            if key in place.copies:
                return Standing.COPY
            if key not in place.waiting:
                _note(place.waiting, key, now)
            return Standing.WAITS
        if asked.incarnation <= place.session.incarnation or key in place.copies:
            self._dispute(place)
        return self._admit(country, key, asked, _earlier(place, key, asked))

    def heard(self, country: str, session: bytes) -> bool:
        """Return whether this session acts for the node, and note that it has called."""
        if not self.acts(country, session):
            return False
        place, now = self._places[country], self._clock()
        place.heard, place.gone = now, False
        for key in [key for key, asked in place.waiting.items() if now - asked >= PROOF_SECONDS]:
            self._dispute(place)
            place.note_copy(key)
        return True

    def acts(self, country: str, session: bytes) -> bool:
        """Return whether this session acts for the node of a country."""
        place = self._places.get(country)
        return place is not None and place.session.key == session_key(session)

    def acted(self, country: str, session: bytes) -> bool:
        """Return whether this session acts, or acted before and was not found to be a copy."""
        place, key = self._places.get(country), session_key(session)
        return place is not None and key in (place.session.key, *place.session.earlier)

    def claim(self, country: str, session: bytes, address: str) -> Claim:
        """Return what a session is for the node; note from where the one that acts has called."""
        place, key = self._places.get(country), session_key(session)
        if place is None:
            return Claim(Rank.OTHER)
        if key == place.session.key:
            place.address = address or place.address
            return ACTS
        if key in place.session.earlier:
            return Claim(Rank.FORMER, place.session.earlier.index(key))
        return Claim(Rank.LIKELY if address and address == place.address else Rank.OTHER)

    def ended(self, country: str, session: bytes) -> None:
        """Note that a session signed off, or that its connection broke during a call."""
        if self.acts(country, session):
            self._places[country].gone = True

    def disputed(self, country: str) -> bool:
        """Return whether two machines have presented the identity of a country's node."""
        place = self._places.get(country)
        return place is not None and place.session.disputed

    def disputes(self) -> tuple[str, ...]:
        """Return the countries whose node's identity two machines have."""
        return tuple(sorted(country for country in list(self._places) if self.disputed(country)))

    def forget(self, country: str) -> None:
        """Forget everything about a country's node, whose certificates were revoked."""
        self._places.pop(country, None)
        self._store.forget(country)

    def _returning(self, place: _Place, key: bytes, asked: SignIn) -> Standing:
        """Let a predecessor act again that has called, been answered, and called again."""
        if key not in place.returned:
            place.returned.add(key)
            return Standing.WAITS
        self._dispute(place)
        acted = place.session.earlier
        before = acted.index(key)
        for copy in (*acted[before + 1 :], place.session.key):
            place.note_copy(copy)
        return self._admit(place.session.country, key, asked, acted[:before])

    def _admit(
        self, country: str, key: bytes, asked: SignIn, earlier: tuple[bytes, ...]
    ) -> Standing:
        place = self._places.get(country)
        disputed = place is not None and place.session.disputed
        session = ActingSession(country, asked.incarnation, key, earlier, disputed)
        copies = {} if place is None else {k: None for k in place.copies if k != key}
        if place is None or place.session != session:
            self._store.save(session)
        self._places[country] = taken = _Place(session, self._clock(), copies=copies)
        if place is not None:
            taken.address = place.address
            taken.returned = place.returned.intersection(earlier)
            taken.waiting = place.waiting if place.session.key == key else {}
        return Standing.ADMITTED

    def _dispute(self, place: _Place) -> None:
        """Store and report a dispute, the first time; if this fails, the next call repeats it."""
        if not place.session.disputed:
            disputed = replace(place.session, disputed=True)
            self._store.save(disputed)
            self._on_dispute(disputed.country)
            place.session = disputed


def _earlier(place: _Place | None, key: bytes, asked: SignIn) -> tuple[bytes, ...]:
    """Return the sessions before the one that is admitted: those that acted, whatever it states."""
    if place is None:
        return (asked.former,) if asked.former else ()
    acted = place.session
    return acted.earlier if key == acted.key else (*acted.earlier, acted.key)[-MOST_EARLIER:]


def session_key(session: bytes) -> bytes:
    """Return the hash by which a session is known; a node's folder holds no more of it."""
    return hashlib.sha256(session).digest()


def _note(known: dict[bytes, V], key: bytes, value: V) -> None:
    """Remember a session, and forget the oldest one beyond MOST_COPIES."""
    known[key] = value
    while len(known) > MOST_COPIES:
        del known[next(iter(known))]
