"""Log lines, alike in all processes: text for people, or a JSON object a line, with the ids of what they are about.

The ids (`request_id`, `job_id`, `key_id`, `trace_id`) belong to the thread that works on a request or a job; each line
that it logs carries them, whoever wrote it.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr
from pythonjsonlogger.json import JsonFormatter

from shared.log_masks import LogMask
from shared.settings import Settings

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_NO_IDS: Mapping[str, str] = MappingProxyType({})
_ids: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default=_NO_IDS)


def add_log_ids(**ids: str) -> None:
    """Put further ids on all lines that this thread logs from now on."""
    _ids.set({**_ids.get(), **ids})


def clear_log_ids() -> None:
    """Put no ids on what this thread logs from now on: it turns to something else."""
    _ids.set(_NO_IDS)


@contextmanager
def log_ids(ids: Mapping[str, str]) -> Iterator[None]:
    """Put ids on all lines that this thread logs within the block."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


class TextLines(logging.Formatter):
    """Lines for people; the ids stand at the end of the first one."""

    def __init__(self, mask: LogMask) -> None:
        super().__init__(TEXT_FORMAT)
        self._mask = mask

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without traceback."""
        line, ids = super().formatMessage(record), _ids.get()
        return f"{line} [{' '.join(f'{name}={value}' for name, value in ids.items())}]" if ids else line

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback where there is one."""
        return self._mask(super().format(record))


class JsonLines(JsonFormatter):
    """One JSON object a line: time, level, logger, message, the ids, further members, exc_info."""

    def __init__(self, mask: LogMask) -> None:
        renamed = {"levelname": "level", "name": "logger"}
        super().__init__(["levelname", "name", "message"], rename_fields=renamed, timestamp="time")
        self._mask = mask

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Add the ids and mask all texts, before they are written as JSON."""
        whole = {**log_data, **_ids.get()}  # an id may be a client's own words
        return {name: self._mask(value) if isinstance(value, str) else value for name, value in whole.items()}


def configure_logging(settings: Settings) -> None:
    """Log to stderr as the settings say, unless the process has decided already where its lines go."""
    mask = LogMask(value.get_secret_value() for _, value in settings if isinstance(value, SecretStr))
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(mask) if settings.log_format == "json" else TextLines(mask))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
