"""Forwards Fleet calls to the SuperLink; calls wait while the SuperLink is restarted."""

import asyncio
import os
import ssl
from collections.abc import Mapping

import httpx

from protocols.wire.flower_frame import FLEET_CALLS, OBJECT_CALLS
from server.flower.superlink import SuperLink

FORWARD_SECONDS = 30.0
HOLD_SECONDS = 15.0
"""How long a call waits for a SuperLink that is starting; then it fails, and may be repeated."""
IDLE_SECONDS = 2.0
"""How long an idle connection may be used again. The SuperLink's server closes it after five
seconds, and a call at that moment would be lost."""
PROTOBUF = "application/protobuf"
PATHS = FLEET_CALLS | OBJECT_CALLS
GONE = (int(httpx.codes.SERVICE_UNAVAILABLE), b"")


class Forwarding:
    """Forwards calls to the current SuperLink. Use it in one event loop only."""

    def __init__(self, *, hold_seconds: float = HOLD_SECONDS) -> None:
        """Calls wait for `open`, at most `hold_seconds`."""
        self._hold_seconds = hold_seconds
        self._client: httpx.AsyncClient | None = None
        self._opened = asyncio.Event()

    async def __call__(
        self, method: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Return the SuperLink's status and body; 503 if it does not answer."""
        client = await self._ready()
        if client is None:
            return GONE
        headers = {**headers, "content-type": PROTOBUF, "accept": PROTOBUF}
        path = f"/v1/fleet/{PATHS[method]}"
        try:
            response = await client.post(path, content=body, headers=headers)
        except httpx.HTTPError:
            return GONE
        return response.status_code, response.content

    def open(self, link: SuperLink) -> None:
        """Forward calls to this SuperLink from now on, including those that wait."""
        self._client = flower_client(link)
        self._opened.set()

    async def close(self) -> None:
        """Make calls wait, because the SuperLink has ended or is about to end."""
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
    """Return a client that trusts only this SuperLink's certificate."""
    trusted = ssl.create_default_context(cafile=os.fspath(link.root_certificate))
    return httpx.AsyncClient(
        base_url=f"https://{link.address}",
        verify=trusted,
        timeout=FORWARD_SECONDS,
        trust_env=False,  # a proxy of the environment would get calls to this machine itself
        limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
    )
