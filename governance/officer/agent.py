"""Sign the country's documents again each day, and nothing else.

The agent decides nothing: it signs what the officer has decided and stored in the folder, and
delivers it to the country's node and the exchange. It reads no draft, permits no study and signs no
new node keys. It opens the folder each time, so that it also signs the officer's latest changes.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from governance.officer.commands_sign import renew
from governance.officer.delivery import Delivery, hand_over, read_delivered
from governance.officer.errors import HandoverFault, OfficerFault
from governance.officer.session import OfficerSession
from governance.trust.bundle import CountryDocuments
from keys.errors import PratiqueError

EARLIEST, LATEST = timedelta(hours=18), timedelta(hours=26)
"""Documents are signed again at a random age between these: daily, not everywhere at once."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
LONGEST_WAIT = timedelta(minutes=10)
"""The longest wait between two looks at the clock, because a machine that sleeps wakes late."""
MIN_LIFE = timedelta(days=2)
"""With less time than this left, the agent reports that it is not ready; the officer must act."""
_log = logging.getLogger("pratique.agent")

OpenSession = Callable[[], OfficerSession]
Jitter = Callable[[float, float], float]


@dataclass(frozen=True)
class AgentStatus:
    """The state of the country's documents when the agent last looked."""

    due: datetime
    expires: datetime | None = None
    failures: int = 0
    fault: str = ""
    foreign: str = ""
    """What the exchange showed and the folder did not sign; kept until the agent restarts."""

    def sentence(self) -> str:
        """Return the status in words."""
        until = f"{self.expires:%Y-%m-%d %H:%M} UTC" if self.expires else "not signed yet"
        next_time = f"next renewal at {self.due:%Y-%m-%d %H:%M} UTC"
        return "; ".join(
            filter(None, (f"documents until {until}", next_time, self.fault, self.foreign))
        )

    def well(self, now: datetime) -> bool:
        """Whether the documents are valid long enough, and nobody else signs for the country."""
        return not self.foreign and self.expires is not None and self.expires - now > MIN_LIFE


def pause_after(failures: int, jitter: Jitter) -> timedelta:
    """Return how long to wait after this many failures in a row: 30 s, doubled up to an hour."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
    fraction: float = jitter(0.5, 1.0)
    return timedelta(seconds=longest.total_seconds() * fraction)


def next_due(own: CountryDocuments, jitter: Jitter) -> datetime:
    """Return when documents that reached node and exchange must be signed again."""
    return own.signed_at + EARLIEST + (LATEST - EARLIEST) * jitter(0.0, 1.0)


class Agent:
    """Renew one country's documents in time. `open_session` unlocks the officer's folder."""

    def __init__(
        self,
        open_session: OpenSession,
        clock: Callable[[], datetime],
        jitter: Jitter,
        say: Callable[[str], None] = lambda _: None,
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """Call `say` with the status in words after each attempt.

        `turned` is called at each turn of the loop of `run`, at least every LONGEST_WAIT.
        """
        self._open_session, self._clock, self._jitter = open_session, clock, jitter
        self._say, self._turned = say, turned
        self.status = AgentStatus(due=clock())

    def run(self, stop: threading.Event) -> None:
        """Renew whenever it is due, until `stop` is set."""
        while not stop.is_set():
            self._turned()
            self.look()
            left = min(LONGEST_WAIT, self.status.due - self._clock())
            stop.wait(max(1.0, left.total_seconds()))

    def look(self) -> None:
        """Sign or deliver what is due now. After a fault, keep it and try again after a pause."""
        if self._clock() < self.status.due:
            return
        try:
            self.status = self._renewed()
            _log.info("documents renewed", extra={"what": self.status.sentence()})
        except (PratiqueError, OSError) as fault:
            self.status = self._failed(fault)
            _log.warning("documents not renewed", extra={"why": self.status.fault})
        self._say(self.status.sentence())

    def _renewed(self) -> AgentStatus:
        session = self._open_session()
        try:
            self._sign_or_hand_over(session)
            own = session.own()
        finally:
            self._note_foreign(session.foreign)
            session.close()
        if own is None:  # `renew` has refused by now
            raise OfficerFault("Nothing is signed yet")
        due = next_due(own, self._jitter)
        return AgentStatus(due=due, expires=own.expires, foreign=self.status.foreign)

    def _note_foreign(self, foreign: str) -> None:
        if foreign:
            self.status = replace(self.status, foreign=foreign)
            _log.warning("documents that this folder did not sign", extra={"why": foreign})

    def _sign_or_hand_over(self, session: OfficerSession) -> None:
        """Sign everything again if it is old; else deliver it to whom it has not reached."""
        own = session.own()
        if own is None or session.now() - own.signed_at >= EARLIEST:
            renew(session, Delivery())
        elif not _reached(session, own):
            bundles = (session.documents.bundle(key.public) for key in session.identity.keys)
            hand_over(session, [bundle for bundle in bundles if bundle], None)

    def _failed(self, fault: Exception) -> AgentStatus:
        failures = self.status.failures + 1
        due = self._clock() + pause_after(failures, self._jitter)
        expires = self.status.expires
        if isinstance(fault, HandoverFault):
            expires = self._signed_until() or expires
        return replace(
            self.status, due=due, failures=failures, fault=_first_line(fault), expires=expires
        )

    def _signed_until(self) -> datetime | None:
        try:
            session = self._open_session()
            own = session.own()
        except PratiqueError:
            return None
        session.close()
        return own.expires if own else None


def _reached(session: OfficerSession, own: CountryDocuments) -> bool:
    delivered = read_delivered(session.home.handed_file)
    node = delivered.node if session.settings.node else own.version
    return min(node, delivered.exchange) >= own.version


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0]
