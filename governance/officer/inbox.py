"""Build the officer's inbox from documents and a time, most urgent items first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any

from governance.documents.study import Study
from governance.runtime.safe_text import quoted
from governance.runtime.wording import counted
from governance.trust.bundle import CountryDocuments
from governance.trust.ceremony import Draft

DOCUMENTS_WARNING = timedelta(days=2)
PERMIT_WARNING = timedelta(days=7)
CERTIFICATE_WARNING = timedelta(days=14)
MOST_SHOWN = 20
"""How many items of one matter are shown: many studies must not hide what comes after them."""
SIGNATURES_WARNING = timedelta(days=60)


class Matter(StrEnum):
    """Why an item is in the inbox, in order of urgency."""

    FOREIGN = "documents-not-signed-here"
    DRAFT = "draft-to-sign"
    STUDY = "study-to-decide"
    UNSENT = "documents-not-handed-over"
    KEY = "new-key-waits"
    DOCUMENTS = "own-documents-expire"
    SIGNATURES = "agreement-signatures-expire"
    PERMIT = "permit-expires"
    CERTIFICATE = "certificate-expires"


@dataclass(frozen=True)
class Item:
    """An item of the inbox: what it is about, its date, and the command that deals with it."""

    matter: Matter
    sentence: str
    command: str
    due: datetime | None = None
    digest: str | None = None
    id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON values."""
        due = self.due.isoformat() if self.due else None
        return {
            "matter": self.matter.value,
            "sentence": self.sentence,
            "due": due,
            "id": self.id,
            "digest": self.digest,
            "command": self.command,
        }


@dataclass(frozen=True)
class Waiting:
    """Everything that the inbox is made from.

    `draft` is one that this officer has not signed; `unsent` lists who lacks the newest documents;
    `new_key` says in words what a new key waits for; `signed_until` is when the countries'
    signatures under the agreement expire; `foreign` says in words which documents of this country
    the exchange shows and the folder did not sign.
    """

    country: str
    now: datetime
    draft: Draft | None = None
    studies: tuple[Study, ...] = ()
    own: CountryDocuments | None = None
    unsent: tuple[str, ...] = ()
    certificate_ends: datetime | None = None
    new_key: str = ""
    signed_until: datetime | None = None
    foreign: str = ""


def items(waiting: Waiting) -> list[Item]:
    """Return the items, most urgent first; within one matter, the earliest date first."""
    unsorted = [
        *_foreign(waiting),
        *_draft(waiting),
        *_studies(waiting),
        *_unsent(waiting),
        *_new_key(waiting),
        *_documents(waiting),
        *_signatures(waiting),
        *_permits(waiting),
        *_certificate(waiting),
    ]
    order = list(Matter)
    latest = datetime.max.replace(tzinfo=waiting.now.tzinfo)
    return sorted(unsorted, key=lambda item: (order.index(item.matter), item.due or latest))


def first_of_each(items: Iterable[Item]) -> list[Item]:
    """Return the items to show: the first ones of each matter, then how many more there are."""
    shown: list[Item] = []
    for matter, group in groupby(items, key=lambda item: item.matter):
        listed = list(group)
        shown += listed[:MOST_SHOWN]
        if more := len(listed[MOST_SHOWN:]):
            sentence = f"And {counted(more, 'more item')} like the last one"
            shown.append(Item(matter, sentence, "pratique-officer inbox --json"))
    return shown


def _foreign(waiting: Waiting) -> Iterator[Item]:
    if waiting.foreign:
        yield Item(
            Matter.FOREIGN,
            waiting.foreign,
            "pratique-officer rotate; or, for an old copy, pratique-officer renew --take-over",
        )


def _draft(waiting: Waiting) -> Iterator[Item]:
    if waiting.draft is None:
        return
    what = "A first agreement" if waiting.draft.version == 1 else "A changed agreement"
    title = waiting.draft.agreement.title
    yield Item(
        Matter.DRAFT,
        f"{what} waits for your signature: {quoted(title)}",
        "pratique-officer sign",
        digest=waiting.draft.digest,
    )


def undecided(
    studies: Iterable[Study], own: CountryDocuments | None, country: str, now: datetime
) -> list[Study]:
    """Return the studies that ask this country, have not expired and are not decided yet."""
    decided = {*own.permits, *own.withdrawals} if own else set()
    return [
        study
        for study in studies
        if country in study.countries and study.expires > now and study.digest not in decided
    ]


def _studies(waiting: Waiting) -> Iterator[Item]:
    for study in undecided(waiting.studies, waiting.own, waiting.country, waiting.now):
        yield Item(
            Matter.STUDY,
            f"Decide on {quoted(study.title)} by {until(study.expires, waiting.now)}",
            f"pratique-officer show {study.id}",
            due=study.expires,
            digest=study.digest,
            id=study.id,
        )


def _unsent(waiting: Waiting) -> Iterator[Item]:
    if waiting.unsent:
        whom = " and ".join(waiting.unsent)
        sentence = f"Your newest documents have not reached the {whom}"
        yield Item(Matter.UNSENT, sentence, "pratique-officer renew")


def _new_key(waiting: Waiting) -> Iterator[Item]:
    if waiting.new_key:
        yield Item(Matter.KEY, waiting.new_key, "pratique-officer rotate")


def _signatures(waiting: Waiting) -> Iterator[Item]:
    end = waiting.signed_until
    if end is not None and end - waiting.now <= SIGNATURES_WARNING:
        yield Item(
            Matter.SIGNATURES,
            f"The countries' signatures under the agreement end {ends(end, waiting.now)}: "
            f"after that nothing is computed anywhere",
            "ask the coordinator to run `pratique-coordinator agreement renew`",
            due=end,
        )


def _documents(waiting: Waiting) -> Iterator[Item]:
    own = waiting.own
    if own is None or own.expires - waiting.now > DOCUMENTS_WARNING:
        return
    verb = "have expired" if own.expires <= waiting.now else "expire"
    yield Item(
        Matter.DOCUMENTS,
        f"Your country's documents {verb} {ends(own.expires, waiting.now)}: "
        f"without them your node computes nothing",
        "pratique-officer renew",
        due=own.expires,
    )


def _permits(waiting: Waiting) -> Iterator[Item]:
    own = waiting.own
    titles = {study.digest: study for study in waiting.studies}
    for digest, permit in own.permits.items() if own else ():
        end = permit.conditions.expires
        live = digest not in (own.withdrawals if own else {}) and end > waiting.now
        if live and end - waiting.now <= PERMIT_WARNING:
            study = titles.get(digest)
            yield Item(
                Matter.PERMIT,
                f"Your permit for {quoted(study.title) if study else digest} ends "
                f"{ends(end, waiting.now)}",
                f"pratique-officer show {study.id if study else digest}",
                due=end,
                digest=digest,
                id=study.id if study else None,
            )


def _certificate(waiting: Waiting) -> Iterator[Item]:
    end = waiting.certificate_ends
    if end is not None and end - waiting.now <= CERTIFICATE_WARNING:
        yield Item(
            Matter.CERTIFICATE,
            f"Your certificate for the exchange ends {ends(end, waiting.now)}; it was not renewed",
            "ask the coordinator for a new invitation, then `pratique-officer enrol`",
            due=end,
        )


def until(moment: datetime, now: datetime) -> str:
    """Return a date as `ends` does, to follow the word `by`."""
    return ends(moment, now).removeprefix("on ")


def ends(moment: datetime, now: datetime) -> str:
    """Return a date with its distance from now, such as `on 2026-05-01 12:00 UTC, in 3 days`."""
    date = f"on {moment:%Y-%m-%d %H:%M} UTC"
    away = abs(moment - now)
    span = f"{away.days} days" if away.days > 1 else f"{round(away.total_seconds() / 3600)} hours"
    return f"{date}, in {span}" if moment > now else f"{date}, {span} ago"
