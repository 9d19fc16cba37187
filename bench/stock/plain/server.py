"""Measure messages to every node: with Flower's own call, and with more frequent polling."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

NODES = 4
LOOK_SECONDS = 0.02
Exchange = Callable[[list[Message]], Iterable[Message]]

app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Write the seconds of each exchange to the file that the run's configuration names."""
    config = context.run_config
    nodes = _nodes(grid)
    values = np.random.default_rng(0).standard_normal(int(config["dimension"]))
    count = int(config["messages"])

    def seconds(exchange: Exchange) -> float:
        content = RecordDict({"arrays": ArrayRecord([values])})
        messages = [Message(content, node, "query") for node in nodes]
        started = time.monotonic()
        replies = list(exchange(messages))
        if len(replies) != NODES or any(reply.has_error() for reply in replies):
            raise RuntimeError("a node did not answer")
        return time.monotonic() - started

    seconds(grid.send_and_receive)  # the first one installs the app
    times = {
        "send_and_receive": [seconds(grid.send_and_receive) for _ in range(count)],
        "looked_for_sooner": [seconds(lambda sent: _soon(grid, sent)) for _ in range(count)],
    }
    Path(str(config["results"])).write_text(json.dumps(times), encoding="utf-8")


def _nodes(grid: Grid) -> list[int]:
    while len(nodes := list(grid.get_node_ids())) < NODES:
        time.sleep(LOOK_SECONDS)
    return nodes


def _soon(grid: Grid, messages: list[Message]) -> list[Message]:
    waiting, replies = set(grid.push_messages(messages)), []
    while waiting:
        for reply in grid.pull_messages(waiting):
            replies.append(reply)
            waiting.discard(reply.metadata.reply_to_message_id)
        time.sleep(LOOK_SECONDS)
    return replies
