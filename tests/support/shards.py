"""Divide the long tests into shards of about the same length.

`make test-shard` runs one of them. A file is always in the same shard, whatever is collected.
"""

from zlib import crc32

SHARDS = 6
SECONDS = {
    "tests/integration/test_demo.py": 400,
    "tests/fault/test_campaign.py": 300,
    "tests/unit/server/runs/test_resumption.py": 205,
    "tests/fault/test_links.py": 200,
    "tests/fault/test_coordinator_kills.py": 175,
    "tests/fault/test_door_kills.py": 170,
    "tests/protocol/test_drop_outs.py": 120,
    "tests/integration/test_ports.py": 100,
    "tests/fault/test_node_kills.py": 100,
    "tests/integration/test_superlink.py": 80,
    "tests/fault/test_drop_out.py": 60,
    "tests/protocol/test_exhaustive_search.py": 60,
    "tests/protocol/test_data_independence.py": 55,
    "tests/property/test_private_sum_broken.py": 35,
    "tests/protocol/test_drop_outs_led.py": 30,
    "tests/fault/test_state_kills.py": 15,
    "tests/fault/test_node_disk.py": 15,
    "tests/statistical/test_intervals.py": 10,
    "tests/statistical/test_noise_law.py": 10,
    "tests/statistical/test_one_run_audit.py": 10,
    "tests/statistical/test_masks.py": 5,
    "tests/statistical/test_opened_noise.py": 5,
    "tests/fault/test_state_disk.py": 5,
}
"""About how many seconds each file takes on one idle core; shorter files are left out.

Rough figures: most come from a run on a busy machine, scaled down; those of the demo, the campaign,
the ports, node kills and drop-outs are estimates. `pytest --durations=0` on an idle machine gives
better ones.
"""


def shard_of(file: str) -> int:
    """Return the shard of a file, by its path from the project's root."""
    return _SHARD_OF.get(file, crc32(file.encode()) % SHARDS)


def loads() -> list[int]:
    """Return how many of the listed seconds each shard has."""
    return [sum(SECONDS[f] for f, s in _SHARD_OF.items() if s == n) for n in range(SHARDS)]


def _divided() -> dict[str, int]:
    """Give each file, the longest first, to the shard with the fewest seconds."""
    shards, load = dict[str, int](), [0] * SHARDS
    for file in sorted(SECONDS, key=lambda file: (-SECONDS[file], file)):
        least = load.index(min(load))
        shards[file], load[least] = least, load[least] + SECONDS[file]
    return shards


_SHARD_OF = _divided()
