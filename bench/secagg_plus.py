"""Run Flower's SecAgg+ unchanged: its workflow and its mod, without a network between them.

`SecAggPlusWorkflow` runs its four stages on a grid that hands each message to `secaggplus_mod` at
once. The figures are of the workflow and the mod alone. In Flower's favour, they leave out what
training returns, writing and reading the messages (measured under another name), and the
aggregation that a strategy would do afterwards.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import (
    Code,
    FitIns,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common.recorddict_compat import fitres_to_recorddict, parameters_to_arrayrecord
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictMessage
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from bench.stopwatch import Stopwatch

RUN, TASK, SERVER = 1, 1, 2**32
EXAMPLES = 500
"""Examples of each client: half of the most that the workflow expects by default."""
NO_MODEL = Parameters([], "")
FURTHEST = 1e-4
"""How far the opened mean may be from the true one: values are rounded to multiples of 16/2^22."""


class MemoryGrid:
    """A grid in memory instead of Flower's: each client replies before the call returns.

    `vectors` (n, d) float64 is what the clients' training returns.
    """

    def __init__(self, vectors: NDArray[np.float64], watch: Stopwatch) -> None:
        self._vectors, self._watch = vectors, watch
        self._contexts = {client: _context(client) for client in client_ids(len(vectors))}
        self.sent: dict[int, int] = dict.fromkeys(self._contexts, 0)

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002  # Flower's name for it
    ) -> list[Message]:
        """Return every client's reply."""
        with self._watch.on("transport"):
            return [self._exchanged(message) for message in list(messages)]

    def _exchanged(self, message: Message) -> Message:
        client = message.metadata.dst_node_id
        request = self._carried(message, "server", f"client {client}")
        with self._watch.on(f"client {client}"):
            reply = secaggplus_mod(request, self._contexts[client], self._trained)
        self.sent[client] += len(_serialise(reply))
        return self._carried(reply, f"client {client}", "server")

    def _carried(self, message: Message, sender: str, reader: str) -> Message:
        with self._watch.on(f"messages of {sender}"):
            data = _serialise(message)
        with self._watch.on(f"messages of {reader}"):
            content = recorddict_from_proto(RecordDictMessage.FromString(data))
        return Message(content, metadata=message.metadata)

    def _trained(self, message: Message, context: Context) -> Message:
        with self._watch.on("training"):
            vector = self._vectors[context.node_id - 1]
            parameters = ndarrays_to_parameters([vector])
            result = FitRes(Status(Code.OK, ""), parameters, EXAMPLES, {})
            return Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)


class Everyone:
    """A strategy and its client manager: selects all clients, and stores the opened mean."""

    def __init__(self, clients: int) -> None:
        self._clients = clients
        self.opened: Parameters | None = None

    def configure_fit(self, *_: object) -> list[tuple[Any, FitIns]]:
        """Return the instructions of every client: train on nothing."""
        return [(_Proxy(client), FitIns(NO_MODEL, {})) for client in client_ids(self._clients)]

    def aggregate_fit(self, _: int, results: list[Any], __: object) -> tuple[None, dict[str, Any]]:
        """Store what the workflow opened; it sets the same values in every client's result."""
        self.opened = results[0][1].parameters
        return None, {}

    def num_available(self) -> int:
        """Return how many clients there are."""
        return self._clients


class _Proxy:
    def __init__(self, client: int) -> None:
        self.node_id, self.cid = client, str(client)


def flower_round(vectors: NDArray[np.float64], threshold: int, watch: Stopwatch) -> MemoryGrid:
    """Run one round of SecAgg+ over `vectors` (n, d) float64; return its grid.

    Each client shares with all others, and `threshold` shares open a seed; everything else is
    Flower's default.
    """
    _identify()
    grid, everyone = MemoryGrid(vectors, watch), Everyone(len(vectors))
    context = LegacyContext(
        _context(SERVER), strategy=cast("Any", everyone), client_manager=cast("Any", everyone)
    )
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
    model = parameters_to_arrayrecord(NO_MODEL, keep_input=True)
    context.state.array_records[MAIN_PARAMS_RECORD] = model
    workflow = SecAggPlusWorkflow(1.0, threshold / len(vectors))
    with _silent(), watch.on("server"):
        workflow(cast("Any", grid), context)
    _require_mean(everyone.opened, vectors)
    return grid


def client_ids(count: int) -> range:
    """Return Flower's numbers of that many clients."""
    return range(1, count + 1)


def _identify() -> None:
    """Set the ids of this process's run, as Flower's own launcher would."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN, TASK, SERVER


@contextmanager
def _silent() -> Iterator[None]:
    """Disable Flower's logging, because writing to a terminal is not part of its sum."""
    flower = logging.getLogger("flwr")
    before, flower.disabled = flower.disabled, True
    try:
        yield
    finally:
        flower.disabled = before


def _context(node: int) -> Context:
    return Context(run_id=RUN, node_id=node, node_config={}, state=RecordDict(), run_config={})


def _serialise(message: Message) -> bytes:
    written: bytes = recorddict_to_proto(message.content).SerializeToString()
    return written


def _require_mean(opened: Parameters | None, vectors: NDArray[np.float64]) -> None:
    if opened is None:
        raise RuntimeError("SecAgg+ opened nothing")
    (mean,) = parameters_to_ndarrays(opened)
    if np.abs(mean - vectors.mean(axis=0)).max() > FURTHEST:
        raise RuntimeError("SecAgg+ opened another sum")
