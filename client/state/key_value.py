"""Small facts that outlive the daemon, by name: versions seen, whether the node is paused."""

from sqlalchemy import Connection, delete, insert, select

from client.state.tables import settings


def get_value(connection: Connection, name: str) -> str | None:
    """Return what is kept under the name."""
    query = select(settings.c.value).where(settings.c.name == name)
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def set_value(connection: Connection, name: str, value: str | None) -> None:
    """Keep a value under the name in the caller's transaction; None removes it."""
    connection.execute(delete(settings).where(settings.c.name == name))
    if value is not None:
        connection.execute(insert(settings).values(name=name, value=value))
