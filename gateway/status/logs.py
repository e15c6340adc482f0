"""The log: one form for all lines, and the lines of the access log on their way.

All workers find out the same about nodes and Docker, within moments. What one of them has said, the
others don't say again (`SaidOnce`).

The access log is written in pieces, a few times a second, because a write for each line would cost
more than the line. All other lines are written at once.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import IO, Any

from gateway.background import forever
from gateway.settings import Settings
from gateway.status.observation import current

FLUSH_SECONDS = 0.2  # for which a line of the access log may wait
FLUSH_LINES = 500  # that may wait
REPEAT_SECONDS = 10.0  # for which a worker doesn't say what another one has said
# Bytes that are written to a pipe at once or not at all (pipe(7)), so that the lines of several
# workers don't mingle.
PIPE_BUF = 4096

# The ids that are taken of a client have nothing that a log must escape.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def stamp(seconds: float) -> str:
    """The time as RFC 3339 wants it, in UTC: "2026-11-23T13:47:57.123Z"."""
    second = int(seconds)
    if second != _stamp[0]:
        _stamp[:] = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{_stamp[1]}.{int(seconds * 1000) % 1000:03d}Z"


_stamp: list[Any] = [0, ""]


def request_of(record: logging.LogRecord) -> str:
    """The id of the request in which the gateway logs this.

    It is empty in what the server says of a connection.
    """
    return current.get().request_id if record.name.startswith("objgw") else ""


def logger_of(record: logging.LogRecord) -> str:
    """Who logs this. gunicorn calls the log of all that it does `gunicorn.error`.

    A line with that name looks like an error to whoever starts the gateway.
    """
    return "gunicorn" if record.name == "gunicorn.error" else record.name


class LineFormatter(logging.Formatter):
    """Log records as lines to read.

    Control characters of a message are escaped; a traceback keeps its line ends.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", record.getMessage())
        line = f"{stamp(record.created)} {record.levelname} {logger_of(record)} {message}"
        if request := request_of(record):
            line += f" request={request}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """Log records as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "logger": logger_of(record),
        }
        fields["message"] = record.getMessage()
        if request := request_of(record):
            fields["request"] = request
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class SaidOnce(logging.Filter):
    """Lets a line about nodes or Docker pass unless another worker has just said the same.

    A worker's own line passes again: the node has stopped once more. So do lines about a request.
    What was said is in the file `said` of the workers' folder, for `REPEAT_SECONDS`. Where there
    is no such folder, this is the only worker.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder or not record.name.startswith("objgw") or request_of(record):
            return True
        try:
            with (Path(folder) / "said").open("a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # held for a moment, and no longer than its owner
                error = record.exc_info[1] if record.exc_info else ""
                return self._first(file, f"{record.getMessage()} {error!r}")
        except (OSError, ValueError):  # it is being removed, for one; better twice than never
            return True

    @staticmethod
    def _first(file: IO[str], message: str) -> bool:
        """Whether no other worker has said it; notes that this one does."""
        file.seek(0)
        now, own = time.time(), os.getpid()
        said = [json.loads(line) for line in file]
        recent = [each for each in said if each[0] > now - REPEAT_SECONDS]
        if any(message == text and own != worker for _, worker, text in recent):
            return False
        file.seek(0)
        file.truncate()
        recent.append([now, own, message])
        file.writelines(f"{json.dumps(each)}\n" for each in recent)
        return True


def log_settings(settings: Settings) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes.

    All that gunicorn and the gateway log goes to standard error, in one form.

    >>> log_settings(Settings(log_format="json"))["formatters"]["line"]["class"]
    'gateway.status.logs.JsonFormatter'
    """
    kind = JsonFormatter if settings.log_format == "json" else LineFormatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"class": f"{__name__}.{kind.__name__}"}},
        "filters": {"once": {"()": f"{__name__}.{SaidOnce.__name__}"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["once"],
            }
        },
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {
            name: {"level": "INFO", "handlers": [], "propagate": True}
            for name in ("gunicorn.error",)
        },
    }


class Lines:
    """Lines on their way to a file descriptor.

    They are written together, every `FLUSH_SECONDS` and when the process ends.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []

    def start(self) -> None:
        """Starts the thread that writes."""
        atexit.register(self.flush)
        threading.Thread(target=self._run, name="objgw-lines", daemon=True).start()

    def add(self, line: str) -> None:
        """Adds a line, which ends with a line end and is ASCII."""
        self._lines.append(line)
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Writes all lines that wait, in pieces that other processes' lines can't get into."""
        lines, self._lines = self._lines, []
        piece = ""
        with contextlib.suppress(OSError):  # nobody reads it any more
            for line in lines:
                if len(piece) + len(line) > PIPE_BUF:
                    self._write(piece.encode("ascii", "replace"))
                    piece = ""
                piece += line
            self._write(piece.encode("ascii", "replace"))

    def _write(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]

    def _run(self) -> None:
        forever(self._flush_soon, "the writing of the access log")

    def _flush_soon(self) -> None:
        time.sleep(FLUSH_SECONDS)
        self.flush()
