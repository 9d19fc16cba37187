"""Logs of the daemons: one JSON object a line on standard error, no personal data.

Loggers are the standard library's; what they are given as `extra` becomes fields. A field that
is not named in `FIELDS` is left out, so that nothing derived from a record slips into a log.
"""

import logging
import sys
from typing import TextIO

import structlog

FIELDS = (
    "country", "code", "federation", "needed", "path", "phase", "role", "round", "run", "seconds",
    "study", "what", "why",
)  # fmt: skip
"""The fields that a log line may have beside time, level, logger and event."""


def configure_logs(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Send the project's loggers to `stream` as JSON lines; libraries only from warnings up."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_ours_or_a_warning)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
            foreign_pre_chain=[
                structlog.stdlib.ExtraAdder(allow=FIELDS),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
            ],
        )
    )
    handler.addFilter(_ours_or_trouble)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("pratique").setLevel(level)


def _ours_or_trouble(record: logging.LogRecord) -> bool:
    """Whatever level a library sets for its own logger, only its troubles are told."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] == "pratique"


def _ours_or_a_warning(record: logging.LogRecord) -> bool:
    """A library that sets its own logger's level is held to warnings all the same."""
    return record.levelno >= logging.WARNING or record.name.split(".")[0] == "pratique"
