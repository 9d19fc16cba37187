"""The officer's side agent: it signs the country's documents again each day, and nothing else.

It decides nothing: it signs what the officer has decided, as it stands in the folder, and hands it
to the country's node and the exchange. It reads no draft, permits no study, and vouches for no
node. The folder is opened each time, so that changes by the officer are signed too.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from governance.officer.commands_sign import renew
from governance.officer.delivery import Delivery, hand_over, read_handed
from governance.officer.errors import HandoverFault, OfficerFault
from governance.officer.session import OfficerSession
from governance.trust.bundle import CountryDocuments
from keys.errors import PratiqueError

EARLIEST, LATEST = timedelta(hours=18), timedelta(hours=26)
"""After how long documents are signed again: once a day, not at the same moment everywhere."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
LONGEST_WAIT = timedelta(minutes=10)
"""A machine that slept meanwhile is behind no longer than this."""
LEAST_LIFE = timedelta(days=2)
"""Less than this left is reported as not ready: the officer has that long to correct it."""
_log = logging.getLogger("pratique.agent")

Opened = Callable[[], OfficerSession]
Jitter = Callable[[float, float], float]


@dataclass(frozen=True)
class AgentStatus:
    """Where the country's documents stand, as the agent saw them last."""

    due: datetime
    expires: datetime | None = None
    failures: int = 0
    fault: str = ""
    foreign: str = ""
    """What the exchange showed and the folder did not sign; it stays until the agent restarts."""

    def sentence(self) -> str:
        """Return it in words."""
        until = f"{self.expires:%Y-%m-%d %H:%M} UTC" if self.expires else "not signed yet"
        next_time = f"next renewal at {self.due:%Y-%m-%d %H:%M} UTC"
        return "; ".join(
            filter(None, (f"documents until {until}", next_time, self.fault, self.foreign))
        )

    def well(self, now: datetime) -> bool:
        """Whether the documents hold for long enough, and nobody else signs for the country."""
        return not self.foreign and self.expires is not None and self.expires - now > LEAST_LIFE


def pause_after(failures: int, jitter: Jitter) -> timedelta:
    """Return how long to wait after so many failures in a row: 30 s doubling to an hour."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
    part: float = jitter(0.5, 1.0)
    return timedelta(seconds=longest.total_seconds() * part)


def next_due(own: CountryDocuments, jitter: Jitter) -> datetime:
    """Return when documents that reached everyone are signed again."""
    return own.signed_at + EARLIEST + (LATEST - EARLIEST) * jitter(0.0, 1.0)


class Agent:
    """Keeps one country's documents fresh. `opened` unlocks the officer's folder once more."""

    def __init__(
        self,
        opened: Opened,
        clock: Callable[[], datetime],
        jitter: Jitter,
        say: Callable[[str], None] = lambda _: None,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """`say` is called with a sentence about the state, after each attempt.

        `turned` is called at each turn of `run`, at least every LONGEST_WAIT.
        """
        self._opened, self._clock, self._jitter, self._say = opened, clock, jitter, say
        self._turned = turned
        self.standing = AgentStatus(due=clock())

    def run(self, stop: threading.Event) -> None:
        """Renew whenever it is due, until `stop` is set."""
        while not stop.is_set():
            self._turned()
            self.look()
            left = min(LONGEST_WAIT, self.standing.due - self._clock())
            stop.wait(max(1.0, left.total_seconds()))

    def look(self) -> None:
        """Do what is due now, if anything; a fault is kept, and tried again after a pause."""
        if self._clock() < self.standing.due:
            return
        try:
            self.standing = self._renewed()
            _log.info("documents renewed", extra={"what": self.standing.sentence()})
        except (PratiqueError, OSError) as fault:
            self.standing = self._failed(fault)
            _log.warning("documents not renewed", extra={"why": self.standing.fault})
        self._say(self.standing.sentence())

    def _renewed(self) -> AgentStatus:
        session = self._opened()
        try:
            self._sign_or_hand_over(session)
            own = session.own()
        finally:
            self._beware(session.foreign)
            session.close()
        if own is None:  # `renew` has refused by now
            raise OfficerFault("Nothing is signed yet")
        due = next_due(own, self._jitter)
        return AgentStatus(due=due, expires=own.expires, foreign=self.standing.foreign)

    def _beware(self, foreign: str) -> None:
        if foreign:
            self.standing = replace(self.standing, foreign=foreign)
            _log.warning("documents that this folder did not sign", extra={"why": foreign})

    def _sign_or_hand_over(self, session: OfficerSession) -> None:
        """What is fresh is handed over to whom it did not reach; else all is signed again."""
        own = session.own()
        if own is None or session.now() - own.signed_at >= EARLIEST:
            renew(session, Delivery())
        elif not _reached(session, own):
            held = (session.documents.bundle(key.public) for key in session.identity.keys)
            hand_over(session, [bundle for bundle in held if bundle], None)

    def _failed(self, fault: Exception) -> AgentStatus:
        failures = self.standing.failures + 1
        due = self._clock() + pause_after(failures, self._jitter)
        kept = self.standing.expires
        if isinstance(fault, HandoverFault):
            kept = self._signed_until() or kept
        return replace(
            self.standing, due=due, failures=failures, fault=_first_line(fault), expires=kept
        )

    def _signed_until(self) -> datetime | None:
        try:
            session = self._opened()
            own = session.own()
        except PratiqueError:
            return None
        session.close()
        return own.expires if own else None


def _reached(session: OfficerSession, own: CountryDocuments) -> bool:
    handed = read_handed(session.home.handed_file)
    node = handed.node if session.settings.node else own.version
    return min(node, handed.exchange) >= own.version


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0]
