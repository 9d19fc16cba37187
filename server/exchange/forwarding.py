"""Carries Fleet calls on to the SuperLink, and keeps them waiting while it is started again."""

import asyncio
import os
import ssl
from collections.abc import Mapping

import httpx

from protocols.wire.flower_frame import FLEET_CALLS, OBJECT_CALLS
from server.flower.superlink import SuperLink

FORWARD_SECONDS = 30.0
HOLD_SECONDS = 15.0
"""How long a call waits for a SuperLink that is being started; then it fails in passing."""
IDLE_SECONDS = 2.0
"""How long an idle connection is used again. The SuperLink's server closes one after five; a call
that is made just then would be lost."""
PROTOBUF = "application/protobuf"
PATHS = FLEET_CALLS | OBJECT_CALLS
GONE = (int(httpx.codes.SERVICE_UNAVAILABLE), b"")


class Forwarding:
    """The way to the SuperLink that runs now. To be used in one event loop."""

    def __init__(self, *, hold_seconds: float = HOLD_SECONDS) -> None:
        """Calls wait for `open` first, but no longer than `hold_seconds`."""
        self._hold_seconds = hold_seconds
        self._client: httpx.AsyncClient | None = None
        self._opened = asyncio.Event()

    async def __call__(
        self, method: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Return the SuperLink's status and body; 503 where it is gone."""
        client = await self._ready()
        if client is None:
            return GONE
        sent = {**headers, "content-type": PROTOBUF, "accept": PROTOBUF}
        try:
            response = await client.post(f"/v1/fleet/{PATHS[method]}", content=body, headers=sent)
        except httpx.HTTPError:
            return GONE
        return response.status_code, response.content

    def open(self, link: SuperLink) -> None:
        """Send calls to this SuperLink, and those that wait."""
        self._client = flower_client(link)
        self._opened.set()

    async def close(self) -> None:
        """Let calls wait: the SuperLink is gone, or about to go."""
        self._opened.clear()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _ready(self) -> httpx.AsyncClient | None:
        try:
            await asyncio.wait_for(self._opened.wait(), self._hold_seconds)
        except TimeoutError:
            return None
        return self._client


def flower_client(link: SuperLink) -> httpx.AsyncClient:
    """Return a client that trusts this SuperLink's own certificate and no other."""
    trusted = ssl.create_default_context(cafile=os.fspath(link.root_certificate))
    return httpx.AsyncClient(
        base_url=f"https://{link.address}",
        verify=trusted,
        timeout=FORWARD_SECONDS,
        limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
    )
