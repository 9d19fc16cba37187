"""A hostile officer's bulk of documents, as a flood in another process sends it."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.synchronize import Event

from governance.documents.permit import Withdrawal
from governance.trust.bundle import CountryBundle
from governance.trust.layout import node_path, withdrawal_path
from keys.errors import PratiqueError
from keys.identity import SigningKey
from protocols.proto.exchange_pb2 import SubmitRequest
from protocols.wire.channel import ExchangeLink
from tests.support.documents import NOW, country_metadata, node_keys

PAUSE_SECONDS = 0.1


def withdrawals(country: str, studies: Sequence[str]) -> dict[str, bytes]:
    """Return a withdrawal of each study with one of these digests, by path."""
    made = (Withdrawal(country=country, study=s, reason="None.", issued=NOW) for s in studies)
    return {withdrawal_path(country, each.study): each.canonical() for each in made}


def invented(number: int) -> list[str]:
    """Return digests of studies that nobody has published."""
    return [f"sha256:{index:064x}" for index in range(1, number + 1)]


def bulk_bundle(
    country: str, key: SigningKey, documents: dict[str, bytes], version: int = 1
) -> bytes:
    """Return a bundle with the node's keys and these documents, of any number."""
    targets = {node_path(country): node_keys(country).canonical(), **documents}
    metadata, _ = country_metadata(key, targets, version=version)
    texts = {path: data.decode() for path, data in targets.items()}
    signed = CountryBundle.model_construct(
        country=country, metadata=metadata.decode(), targets=texts
    )
    return signed.canonical()


def submit_forever(
    ready: Event,
    stop: Event,
    address: str,
    authority: bytes,
    key: bytes,
    certificate: bytes,
    bundles: Sequence[bytes],
    connections: int,
) -> None:
    """Submit the bundles over and over, over so many connections at once."""
    threads = [
        threading.Thread(
            target=_submit, args=(ready, stop, address, authority, key, certificate, bundles)
        )
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _submit(
    ready: Event,
    stop: Event,
    address: str,
    authority: bytes,
    key: bytes,
    certificate: bytes,
    bundles: Sequence[bytes],
) -> None:
    link = ExchangeLink(address, authority=authority, key=key, certificate=certificate)
    while not stop.is_set():
        for bundle in bundles:
            ready.set()
            with suppress(PratiqueError):
                link.submit(SubmitRequest.COUNTRY_BUNDLE, bundle, seconds=30)
            if stop.wait(PAUSE_SECONDS):
                break
    link.close()
