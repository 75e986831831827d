"""
Logging: event names ``room.event``, values as keys; people's form on a terminal, JSON elsewhere.

Configured once by the composition root. Shells log, pure rooms do not. Values whose key says that
they are secret are replaced whatever the caller thought.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from pilothouse.runtime.settings import LogFormat, LogLevel

_SECRET_WORDS: Final = (
    "token",
    "password",
    "secret_data",
    "private_key",
    "key_pem",
    "authorization",
)
_GRPC_SERVER: Final = "grpc._cython.cygrpc"
_MAX_VALUE_CHARACTERS: Final = 2_000


def configure_logs(
    level: LogLevel = LogLevel.INFO,
    form: LogFormat = LogFormat.AUTO,
    stream: TextIO | None = None,
) -> None:
    """Send log lines of at least `level` to `stream` (standard error by default)."""
    out = sys.stderr if stream is None else stream
    for_people = form is LogFormat.CONSOLE or (form is LogFormat.AUTO and out.isatty())
    threshold = getattr(logging, level.upper())
    renderer: list[Any] = (
        [
            # Not the default, which shows local variables: they may be keys.
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if for_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S.%f" if for_people else "iso", utc=not for_people
            ),
            hide_secrets,
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard library's logging (grpc, aiohttp) say only what is wrong.
    logging.basicConfig(stream=out, level=max(threshold, logging.WARNING), force=True)
    logging.getLogger(_GRPC_SERVER).addFilter(_client_is_there)


def _client_is_there(record: logging.LogRecord) -> bool:
    """Let pass what grpc says, except that clients went away: a traceback for each is a weapon."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


def hide_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace values under secret-sounding keys and cut what is too long for a line."""
    for key, value in event.items():
        if any(word in key.lower() for word in _SECRET_WORDS):
            event[key] = "<hidden>"
        elif isinstance(value, str) and len(value) > _MAX_VALUE_CHARACTERS:
            event[key] = value[:_MAX_VALUE_CHARACTERS] + "..."
    return event
