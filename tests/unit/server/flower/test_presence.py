"""Who waits for a change is woken by it, and what changed survives the way to the server app."""

import time
from threading import Thread

from server.flower.presence import Presence, PresenceChanges, PresenceUpdate


def test_an_update_is_the_same_after_its_way_as_json() -> None:
    update = PresenceUpdate(4, {"DK": Presence(7, 2, 0.25, 9), "EE": Presence(8, 1, 30.0)})
    assert PresenceUpdate.from_json(update.to_json()) == update


def test_a_session_differs_after_each_sign_in_and_each_new_superlink() -> None:
    first = Presence(7, 1, 0.0)
    assert first.session == Presence(7, 1, 99.0, replies=5).session
    assert first.session != Presence(7, 2, 0.0).session
    assert first.session != Presence(8, 1, 0.0).session


def test_what_has_changed_already_needs_no_waiting() -> None:
    changes = PresenceChanges()
    changes.note()
    began = time.monotonic()
    assert changes.after(0, 60) == 1
    assert changes.after(-1, 60) == 1
    assert time.monotonic() - began < 30


def test_the_wait_ends_when_time_is_over() -> None:
    changes = PresenceChanges()
    assert changes.after(0, 0.01) == 0
    assert changes.after(0, 0) == 0


def test_a_change_wakes_whoever_waits() -> None:
    changes, counts = PresenceChanges(), list[int]()
    waiting = Thread(target=lambda: counts.append(changes.after(0, 60)))
    waiting.start()
    changes.note()
    waiting.join(60)
    assert counts == [1]
