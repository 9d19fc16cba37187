"""Logs of the daemons: one JSON object per line, on standard error or in a file that rotates.

Loggers are the standard library's. Their `extra` becomes fields, if `log_fields` admits them. A
message is logged without its arguments, as the constant that the code contains. Of libraries, only
warnings and errors are logged: the place in the library, and the message if it is a constant.
Uncaught errors are logged in the same way, not as tracebacks that contain values.
"""

import faulthandler
import logging
import signal
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import structlog

from governance.runtime.log_fields import (
    LONGEST_NAME,
    LONGEST_TEXT,
    admit,
    error_fields,
    plain,
    project_path,
)
from governance.runtime.log_files import LogFile
from governance.runtime.safe_text import pure_json
from governance.runtime.text_layout import broken, line_width

OURS = "pratique"
LONGEST_LINE = 8192
"""Bytes in one line, its end included."""
DIVERTED = ("flwr",)
"""Libraries whose own handlers write to the terminal."""
FOREIGN_EVENT = "a library reports trouble"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_log = logging.getLogger(f"{OURS}.process")


def configure(file: Path | None = None, stream: TextIO | None = None) -> logging.Handler:
    """Send every logger to `file`, or to `stream` (standard error): JSON, or text on a terminal.

    Returns the handler. Raises OSError if the file cannot be written.
    """
    shown = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(shown) if file is None else LogFile(file)
    handler.setFormatter(LineFormatter(terminal=file is None and shown.isatty()))
    handler.addFilter(ours_or_trouble)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(OURS).setLevel(logging.INFO)
    logging.raiseExceptions = False  # else errors print a record's arguments
    _show_crashes()
    _divert(handler)
    _log_uncaught_errors()
    return handler


def _show_crashes() -> None:
    """Have a crash in native code write the lines of code where it happened, and no value."""
    with suppress(OSError, ValueError):  # standard error is no file
        faulthandler.enable(sys.__stderr__ or sys.stderr)


def reopen_on_hangup(handler: logging.Handler) -> None:
    """Reopen the log file on SIGHUP, as logrotate asks; without a file SIGHUP does nothing."""
    reopen = handler.reopen if isinstance(handler, LogFile) else _do_nothing
    signal.signal(signal.SIGHUP, lambda *_: reopen())


def _do_nothing() -> None:
    return


def ours_or_trouble(record: logging.LogRecord) -> bool:
    """Whether to log a record: all of ours; of libraries, warnings and errors, at any level set."""
    return record.levelno >= logging.WARNING or _is_ours(record)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == OURS


class LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders a record as one line of at most LONGEST_LINE bytes, with the admitted fields."""

    def __init__(self, *, terminal: bool = False) -> None:
        """`terminal` chooses text for a person."""
        render: Any = _as_text if terminal else _as_json
        super().__init__(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[_with_fields],
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return super().format(_bare(record))


def _bare(record: logging.LogRecord) -> logging.LogRecord:
    """Return a record that holds what may be logged and nothing else."""
    bare = logging.makeLogRecord({"name": record.name, "levelno": record.levelno})
    bare.levelname, bare.created, bare.msg = record.levelname, record.created, _event(record)
    bare.fields = _fields(record)
    return bare


def _event(record: logging.LogRecord) -> str:
    """Return the message without its arguments; a library's only if it is a template."""
    template = isinstance(record.msg, str) and (_is_ours(record) or bool(record.args))
    return plain(record.msg) if template and record.msg != "%s" else FOREIGN_EVENT


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    trouble = {} if error is None else error_fields(error)
    if not _is_ours(record):
        return {"place": _place(record), **trouble}
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return admit(extra) | trouble


def _place(record: logging.LogRecord) -> str:
    file = project_path(record.pathname) or f"{record.module}.py"
    return plain(f"{file}:{record.lineno}", LONGEST_TEXT)


def _with_fields(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    record: logging.LogRecord = event["_record"]
    fields: dict[str, Any] = vars(record)["fields"]
    stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
    return {
        "timestamp": stamp.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": plain(record.name, LONGEST_NAME),
        **event,
        **fields,
    }


def _as_json(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    line = _dumps(event)
    if len(line.encode()) < LONGEST_LINE:
        return line
    short = {name: event[name] for name in ("timestamp", "level", "logger", "event")}
    return _dumps({**short, "dropped": ["all its fields: the line was too long"]})


def _as_text(_: Any, __: str, event: structlog.typing.EventDict) -> str:
    """Return lines for a person: time, level, event, and the fields; broken at their width."""
    head = [str(event.pop(name)) for name in ("timestamp", "level", "event")]
    fields = [f"{name}={value!r}" for name, value in event.items() if name != "_record"]
    return "\n".join(broken("  ".join([*head, *fields]), line_width()))


def _dumps(event: structlog.typing.EventDict) -> str:
    return pure_json(event)


def _divert(handler: logging.Handler) -> None:
    """Handle a library's records here, before the library's own handlers see them."""

    def divert(record: logging.LogRecord) -> bool:
        if ours_or_trouble(record):
            handler.handle(record)
        return False

    for name in DIVERTED:
        logger = logging.getLogger(name)
        logger.filters[:] = [divert]


def _log_uncaught_errors() -> None:
    """Log errors that end a thread or the program, and warnings, without their text."""

    def ended(error: BaseException | None) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            info = (type(error), error, error.__traceback__)
            _log.critical("an error that nobody caught", exc_info=info)

    sys.excepthook = lambda _, error, __: ended(error)
    threading.excepthook = lambda args: ended(args.exc_value)
    sys.unraisablehook = lambda args: ended(args.exc_value)
    logging.captureWarnings(capture=True)
