"""Objects in use are left out of collections; records that are no longer in use never stay."""

import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from weakref import ref

import pytest

from governance.runtime.garbage import GarbageCollection
from tests.support import speed


class FormerRecords:
    """Held by a cycle, so that only a collection frees them."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def garbage(monkeypatch: pytest.MonkeyPatch) -> Iterator[GarbageCollection]:
    monkeypatch.setattr(GarbageCollection, "collect_if_changed", speed.COLLECT_IF_CHANGED)
    gc.disable()
    collection = GarbageCollection()
    collection.collect_if_changed(readings=1)
    yield collection
    gc.enable()


def former_records(garbage: GarbageCollection) -> ref[FormerRecords]:
    """Return records that were in use at a collection, and are not any more."""
    records = FormerRecords()
    garbage.collect_if_changed(readings=2)
    return ref(records)


def test_objects_in_use_are_left_out_of_collections(garbage: GarbageCollection) -> None:
    assert len(gc.get_objects()) < gc.get_freeze_count() / 10


def test_records_that_were_in_use_are_freed_once_records_are_read_again(
    garbage: GarbageCollection,
) -> None:
    former = former_records(garbage)
    gc.collect()
    assert former() is not None, "records that were in use should be left out"
    garbage.collect_if_changed(readings=3)
    assert former() is None


def test_records_that_a_request_still_used_are_freed_by_the_next_upkeep(
    garbage: GarbageCollection,
) -> None:
    former = former_records(garbage)
    garbage.collect_if_changed(readings=2)
    assert former() is None


def test_imported_modules_are_left_out_as_well(
    garbage: GarbageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage.collect_if_changed(readings=1)
    before = gc.get_freeze_count()
    objects = [[number] for number in range(1000)]
    garbage.collect_if_changed(readings=1)
    assert gc.get_freeze_count() <= before
    monkeypatch.setitem(sys.modules, "just_imported", ModuleType("just_imported"))
    garbage.collect_if_changed(readings=1)
    assert gc.get_freeze_count() >= before + len(objects)
