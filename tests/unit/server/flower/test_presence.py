"""A change wakes the callers that wait for it; an update is sent to the server app as JSON."""

import time
from threading import Thread

from server.flower.presence import Presence, PresenceChanges, PresenceUpdate


def test_an_update_survives_the_conversion_to_json() -> None:
    update = PresenceUpdate(4, {"DK": Presence(7, 2, 0.25, 9), "EE": Presence(8, 1, 30.0)})
    assert PresenceUpdate.from_json(update.to_json()) == update


def test_a_session_differs_after_each_sign_in_and_each_new_superlink() -> None:
    first = Presence(7, 1, 0.0)
    assert first.session == Presence(7, 1, 99.0, replies=5).session
    assert first.session != Presence(7, 2, 0.0).session
    assert first.session != Presence(8, 1, 0.0).session


def test_an_earlier_change_is_returned_without_a_wait() -> None:
    changes = PresenceChanges()
    changes.note()
    began = time.monotonic()
    assert changes.after(0, 60) == 1
    assert changes.after(-1, 60) == 1
    assert time.monotonic() - began < 30


def test_a_wait_ends_after_the_given_time() -> None:
    changes = PresenceChanges()
    assert changes.after(0, 0.01) == 0
    assert changes.after(0, 0) == 0


def test_a_change_wakes_every_waiting_caller() -> None:
    changes, counts = PresenceChanges(), list[int]()
    waiting = Thread(target=lambda: counts.append(changes.after(0, 60)))
    waiting.start()
    changes.note()
    waiting.join(60)
    assert counts == [1]
