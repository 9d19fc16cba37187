"""A client app that sends back the values that it receives."""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()  # type: ignore[untyped-decorator]
def query(message: Message, context: Context) -> Message:  # noqa: ARG001 (Flower's signature)
    """Return the content of the message."""
    return Message(message.content, reply_to=message)
