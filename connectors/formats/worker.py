"""The process that opens hostile files: `python -m lowtide.connectors.formats.worker`, its socket as standard input.

It holds no secrets (its environment is made for it), may use only so much memory, and ends when its reader does: while
it waits, by the end of the socket; while it works, by an alarm that the kernel delivers whatever the parser is doing.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys

from lowtide.connectors.formats.detect import PARSED
from lowtide.connectors.formats.limits import ReadLimits, Unreadable, megabytes
from lowtide.connectors.formats.protocol import (
    REQUESTS,
    Batch,
    Channel,
    Data,
    Done,
    Failed,
    Need,
    Parse,
    Parsed,
    ReadRows,
    Ready,
    Setup,
)
from lowtide.connectors.positioned import Positioned

# The reader's own clock ends a slow document first; this one only outlives a reader that was killed.
_GRACE_SECONDS = 2.0


def main() -> int:
    """Serve one reader until it goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    limits = ReadLimits()
    channel = Channel(sock, largest=limits.memory_bytes, patience=None)
    with contextlib.suppress(EOFError):
        setup = channel.receive(REQUESTS)
        if not isinstance(setup, Setup):
            return 1
        limits = setup.limits
        _restrict(limits.memory_bytes)
        channel.send(Ready())
        while True:
            _serve(channel, limits)
    return 0


def _restrict(memory: int) -> None:
    """Cap the address space. Where the system knows no such cap (macOS), time is the only bound."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(channel: Channel, limits: ReadLimits) -> None:
    request = channel.receive(REQUESTS)
    if isinstance(request, Parse):
        data = bytes(channel.receive_bytes())
        _alarm(limits.seconds)
        reply = _parse(request, data, limits)
        _alarm(None)
        channel.send(reply)
    elif isinstance(request, ReadRows):
        channel.send(_rows(channel, request, limits))


def _parse(request: Parse, data: bytes, limits: ReadLimits) -> Parsed | Failed:
    """Never raises: whatever a parser of hostile bytes raises, it is that document's reason."""
    try:
        reply = _parsers(request, data, limits)
    except Unreadable as error:
        return Failed(str(error))
    except MemoryError:
        return Failed(f"needs more than {megabytes(limits.memory_bytes)} of memory to parse: split or simplify it")
    except RecursionError:
        return Failed(f"this {request.format} file is nested too deeply to parse: simplify it")
    except Exception as error:
        return Failed(f"the {request.format} parser gave up ({type(error).__name__}): repair or convert the file")
    if len(reply.text) > limits.text_bytes:
        return Failed(f"more than {megabytes(limits.text_bytes)} of text: split the file")
    return reply


def _parsers(request: Parse, data: bytes, limits: ReadLimits) -> Parsed:
    """Parsers are imported when they are first needed: a worker that reads mails never loads PDFium."""
    nothing: list[str | None] = [None] * len(request.fields)
    match request.format:
        case "html":
            from lowtide.connectors.formats.html import read_html  # noqa: PLC0415

            return Parsed(read_html(data), nothing)
        case "pdf":
            from lowtide.connectors.formats.pdf import read_pdf  # noqa: PLC0415

            return Parsed(read_pdf(data, limits), nothing)
        case "docx":
            from lowtide.connectors.formats.docx import read_docx  # noqa: PLC0415

            return Parsed(read_docx(data, limits), nothing)
        case "eml":
            from lowtide.connectors.formats.mail import read_mail  # noqa: PLC0415

            message = read_mail(data, request.fields)
            return Parsed(message.text, message.headers)
    raise Unreadable(f"no parser for {request.format!r}: supported are {', '.join(sorted(PARSED))}")


def _rows(channel: Channel, request: ReadRows, limits: ReadLimits) -> Done | Failed:
    import pyarrow as pa  # noqa: PLC0415

    from lowtide.connectors.formats.parquet import read_parquet  # noqa: PLC0415

    row = 0
    try:
        _alarm(limits.seconds)
        for batch in read_parquet(_Distant(channel, request.size, limits.seconds), request, limits):
            buffer = pa.BufferOutputStream()
            with pa.ipc.new_stream(buffer, batch.columns.schema) as stream:
                stream.write_batch(batch.columns)
            row = batch.start + batch.columns.num_rows
            _alarm(None)
            channel.send(Batch(batch.start, batch.reasons))
            channel.send_bytes(memoryview(buffer.getvalue()))
            _alarm(limits.seconds)
    except Unreadable as error:
        return Failed(str(error), row)
    except MemoryError:
        return Failed(f"row {row} on needs more than {megabytes(limits.memory_bytes)}: write smaller row groups", row)
    except EOFError:
        raise
    except Exception as error:
        return Failed(f"the Parquet reader gave up at row {row} ({type(error).__name__}): write the file again", row)
    finally:
        _alarm(None)
    return Done()


class _Distant(Positioned):
    """The file that the reader holds open, as far as pyarrow asks for it."""

    def __init__(self, channel: Channel, size: int, seconds: float) -> None:
        super().__init__(size)
        self._channel = channel
        self._seconds = seconds

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size - self.at, 0)
        length = left if size is None or size < 0 else min(size, left)
        _alarm(None)
        self._channel.send(Need(self.at, length))
        if not isinstance(self._channel.receive(REQUESTS), Data):
            raise EOFError
        data = bytes(self._channel.receive_bytes())
        _alarm(self._seconds)
        self.at += len(data)
        return data


def _alarm(seconds: float | None) -> None:
    """Have the kernel end this process unless it is called again in time. None: no longer."""
    signal.setitimer(signal.ITIMER_REAL, 0 if seconds is None else seconds + _GRACE_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
