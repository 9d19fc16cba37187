"""Small named values that outlive the daemon, such as document versions and the pause."""

from sqlalchemy import Connection, delete, insert, select

from client.state.tables import settings
from governance.audit.signed_head import note_changing
from protocols.wire.encoding import canonical_json, digest


def get_value(connection: Connection, name: str) -> str | None:
    """Return the value stored under a name, or None if there is none."""
    query = select(settings.c.value).where(settings.c.name == name)
    value: str | None = connection.execute(query).scalar_one_or_none()
    return value


def set_value(connection: Connection, name: str, value: str | None) -> None:
    """Store a value under a name in the caller's transaction; None deletes it.

    A value that is stored already changes nothing, and nothing is signed.
    """
    if get_value(connection, name) == value:
        return
    note_changing(connection, settings_digest)
    connection.execute(delete(settings).where(settings.c.name == name))
    if value is not None:
        connection.execute(insert(settings).values(name=name, value=value))


def settings_digest(connection: Connection) -> str:
    """Return the digest of all settings."""
    rows = connection.execute(select(settings.c.name, settings.c.value).order_by(settings.c.name))
    return digest(canonical_json([[str(name), str(value)] for name, value in rows]))
