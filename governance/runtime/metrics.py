"""The Prometheus metrics of a node and of the coordinator, each in its own registry.

A node's metrics stay on its machine's loopback, for its operator. Even so, none is derived from a
record. Reply times are those at which replies leave: replies that may depend on records leave at
slots of powers of two, the buckets have these slots as bounds, and the coordinator can measure the
same on the wire. Refusals are counted by the code that the coordinator got. What a ledger has
spent follows from the studies' published parameters. There is no cohort, sample or patient count,
and no memory or processor time, because they follow from records.

Labels come from lists: an unknown value counts as `other`, and a table has a largest size. Times
of expiry are in seconds since 1970: subtract `time()` to get the time left.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

OTHER = "other"
MAX_ROWS = 700
"""Largest table: more than there are country codes of two letters."""
REPLY_SLOTS = tuple(0.05 * 2**power for power in range(13))
"""Bounds in seconds: the slots at which replies leave a node (client/border/request_handler.py)."""
ROUND_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
Row = tuple[str, ...]


class Table(Collector):
    """A gauge whose rows are replaced together, so that no old row remains."""

    def __init__(
        self, registry: CollectorRegistry, name: str, description: str, *labels: str
    ) -> None:
        self._name, self._description, self._labels = name, description, labels
        self._rows: Mapping[Row, float] = {}
        registry.register(self)

    def set(self, rows: Mapping[Row, float]) -> None:
        """Show these rows from now on, MAX_ROWS of them at most."""
        self._rows = dict(sorted(rows.items())[:MAX_ROWS])

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the rows."""
        family = GaugeMetricFamily(self._name, self._description, labels=self._labels)
        for row, value in self._rows.items():
            family.add_metric(row, value)
        yield family


class _Shared:
    """The metrics of both daemons."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._versions = Table(
            self.registry,
            "pratique_document_version",
            "Version of each document in use: root, targets, and each country's.",
            "document",
        )
        self._expiries = Table(
            self.registry,
            "pratique_expires_timestamp_seconds",
            "When a document or certificate expires, in seconds since 1970.",
            "what",
        )
        self._entries = Gauge(
            "pratique_audit_log_entries", "Entries of the audit log.", registry=self.registry
        )
        build = Table(
            self.registry, "pratique_build_info", "The version of the program.", "version"
        )
        build.set({(_version(),): 1})

    def documents(self, versions: Mapping[str, int], expiries: Mapping[str, datetime]) -> None:
        """Show the versions of the documents, and when they and the certificates expire."""
        self._versions.set({(name,): number for name, number in versions.items()})
        self._expiries.set({(name,): time.timestamp() for name, time in expiries.items()})

    def log_size(self, entries: int) -> None:
        """Show how long the audit log is."""
        self._entries.set(entries)


class NodeMetrics(_Shared):
    """The metrics of a node. Thread-safe."""

    def __init__(self, phases: Iterable[str], codes: Iterable[str]) -> None:
        """`phases` and `codes` are all that exist; a refusal has one of the codes."""
        super().__init__()
        self._phases, self._codes = frozenset(phases), frozenset(codes)
        self._define_messages()
        self._link = self._gauge("link_up", "Whether the node is connected to the coordinator.")
        self._last_upkeep = self._gauge(
            "last_tend_timestamp_seconds", "When documents and records were last checked."
        )
        self._spent = Table(
            self.registry,
            "pratique_node_ledger_spent_ratio",
            "Part of a register's budget of this period that is spent.",
            "register",
        )
        self._left = Table(
            self.registry,
            "pratique_node_ledger_left_ratio",
            "Part of a register's budget of this period that is left.",
            "register",
        )

    def _define_messages(self) -> None:
        self._answered = Counter(
            "pratique_node_messages",
            "Messages of the coordinator, by phase and outcome: `answered`, or the refusal's code.",
            ["phase", "outcome"],
            registry=self.registry,
        )
        self._refused = Counter(
            "pratique_node_refusals",
            "Messages refused, by the code that the coordinator got.",
            ["code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "pratique_node_reply_seconds",
            "Time from a message until its reply leaves, by phase; bounds are the reply slots.",
            ["phase"],
            buckets=REPLY_SLOTS,
            registry=self.registry,
        )
        for code in sorted(self._codes):
            self._refused.labels(code)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(f"pratique_node_{name}", description, registry=self.registry)

    def link(self, *, up: bool) -> None:
        """Show whether the node is connected to the coordinator."""
        self._link.set(up)

    def count_reply(self, phase: str, code: str | None, seconds: float) -> None:
        """Count a reply; `code` is None if the message was answered."""
        label = _known(phase, self._phases)
        outcome = "answered" if code is None else _known(code, self._codes)
        self._answered.labels(label, outcome).inc()
        self._seconds.labels(label).observe(seconds)
        if code is not None:
            self._refused.labels(outcome).inc()

    def ledger(self, spent: Mapping[str, float]) -> None:
        """Show which part of each register's budget is spent, 0 to 1."""
        self._spent.set({(name,): part for name, part in spent.items()})
        self._left.set({(name,): max(0.0, 1 - part) for name, part in spent.items()})

    def set_last_upkeep(self, at: datetime) -> None:
        """Show when the node last checked its documents and records."""
        self._last_upkeep.set(at.timestamp())


class CoordinatorMetrics(_Shared):
    """The metrics of the coordinator. Thread-safe."""

    def __init__(self, calls: Iterable[str], reasons: Iterable[str]) -> None:
        """`calls` are all calls of the exchange, `reasons` all reasons for a refusal."""
        super().__init__()
        self._calls, self._reasons = frozenset(calls), frozenset(reasons)
        self._online = self._table(
            "node_online", "Whether a country's node is connected.", "country"
        )
        self._disputed = self._table(
            "node_disputed", "Whether two machines have the country's identity.", "country"
        )
        self._runs = self._table("runs", "Runs by state.", "state")
        self._restarts = self._table(
            "flower_restarts", "How often Flower's processes were restarted.", "process"
        )
        self._rounds = Counter(
            "pratique_coordinator_rounds",
            "Rounds by outcome: opened, or void.",
            ["outcome"],
            registry=self.registry,
        )
        self._missed = Counter(
            "pratique_coordinator_missed_rounds",
            "Rounds to which a country did not contribute, or in which it did not answer.",
            ["country"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "pratique_coordinator_round_seconds",
            "Duration of a whole round.",
            buckets=ROUND_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "pratique_coordinator_refused_calls",
            "Calls refused at the exchange, by call and reason.",
            ["call", "reason"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)  # there are no records here

    def _table(self, name: str, description: str, label: str) -> Table:
        return Table(self.registry, f"pratique_coordinator_{name}", description, label)

    def nodes(self, online: Mapping[str, bool], disputed: Collection[str]) -> None:
        """Show which countries' nodes are connected, and whose identity two machines have."""
        self._online.set({(country,): connected for country, connected in online.items()})
        self._disputed.set({(country,): country in disputed for country in online})

    def runs(self, by_state: Mapping[str, int]) -> None:
        """Show how many runs are in each state."""
        self._runs.set({(state,): count for state, count in by_state.items()})

    def restarts(self, by_process: Mapping[str, int]) -> None:
        """Show how often each of Flower's processes was restarted."""
        self._restarts.set({(process,): count for process, count in by_process.items()})

    def round_over(self, outcome: str, seconds: float, missed: Iterable[str] = ()) -> None:
        """Count a finished round, `opened` or `void`, and the countries that missed it."""
        self._rounds.labels(_known(outcome, frozenset({"opened", "void"}))).inc()
        self._seconds.observe(seconds)
        for country in missed:
            self._missed.labels(country).inc()

    def count_refused_call(self, call: str, reason: str) -> None:
        """Count a refused call."""
        self._refused.labels(_known(call, self._calls), _known(reason, self._reasons)).inc()


def _known(value: str, allowed: frozenset[str]) -> str:
    return value if value in allowed else OTHER


def _version() -> str:
    try:
        return version("pratique")
    except PackageNotFoundError:
        return "unknown"
