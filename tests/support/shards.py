"""Divide the long tests into shards of about the same length.

`make test-shard` runs one of them. A file is always in the same shard, whatever is collected.
"""

from zlib import crc32

SHARDS = 6
SECONDS = {
    "tests/integration/test_demo.py": 330,
    "tests/fault/test_links.py": 305,
    "tests/property/test_private_sum_machine.py": 255,
    "tests/fault/test_campaign.py": 210,
    "tests/unit/server/runs/test_resumption.py": 200,
    "tests/fault/test_coordinator_kills.py": 190,
    "tests/property/test_private_sum_liar_machine.py": 165,
    "tests/protocol/test_drop_outs.py": 95,
    "tests/protocol/test_data_independence.py": 85,
    "tests/fault/test_drop_out.py": 75,
    "tests/integration/test_ports.py": 65,
    "tests/fault/test_node_kills.py": 60,
    "tests/statistical/test_intervals.py": 50,
    "tests/fault/test_door_kills.py": 45,
    "tests/integration/test_canary.py": 40,
    "tests/property/test_private_sum_broken.py": 40,
    "tests/fault/test_node_disk.py": 30,
    "tests/integration/test_superlink.py": 25,
    "tests/protocol/test_exhaustive_search.py": 25,
    "tests/fault/test_state_disk.py": 15,
    "tests/fault/test_state_kills.py": 15,
    "tests/integration/test_channel.py": 15,
    "tests/integration/test_node_daemon.py": 15,
    "tests/protocol/test_drop_outs_led.py": 15,
    "tests/statistical/test_local_accuracy.py": 15,
    "tests/statistical/test_opened_noise.py": 10,
    "tests/statistical/test_noise_law.py": 5,
    "tests/statistical/test_one_run_audit.py": 5,
}
"""About how many CPU seconds each file takes; files of few seconds are left out.

Rough figures: seconds of each test from `pytest --durations=0`, scaled to the CPU seconds of its
shard, in a run of all shards on a busy machine.
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
