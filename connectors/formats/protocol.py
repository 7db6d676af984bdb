"""What passes between a reader and its worker: length-prefixed msgpack over one socket.

    reader → worker     Setup, then Parse + raw bytes, or ReadRows; Data after each Need
    worker → reader     Ready, then Parsed | Failed, or any number of Need and Batch + raw bytes up to Done | Failed

Document bytes and Arrow batches travel as raw frames of their own, so that they are not copied into a message first.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TypeVar

import msgspec

from lowtide.connectors.formats.limits import ReadLimits

_LENGTH = struct.Struct("<Q")
_SOCKET_BUFFER = 1 << 20


class Setup(msgspec.Struct, tag=True):
    """The first message: what every document may cost."""

    limits: ReadLimits


class Ready(msgspec.Struct, tag=True):
    """The worker has started and is under its limits."""


class Parse(msgspec.Struct, tag=True):
    """Parse one file, whose bytes follow. `fields` are headers of a mail."""

    format: str
    fields: list[str]


class Parsed(msgspec.Struct, tag=True):
    """The text of one file."""

    text: str
    fields: list[str | None]


class Failed(msgspec.Struct, tag=True):
    """Why there is no text, or why there are no more rows; `row` is the number of the first row that was not read."""

    reason: str
    row: int = 0


class ReadRows(msgspec.Struct, tag=True):
    """Read a Parquet file of `size` bytes, which the worker asks for piece by piece."""

    size: int
    text: str
    id: str | None
    fields: list[str]


class Need(msgspec.Struct, tag=True):
    """The worker asks for these bytes of the file."""

    offset: int
    length: int


class Data(msgspec.Struct, tag=True):
    """The bytes that were needed follow."""


class Batch(msgspec.Struct, tag=True):
    """Rows from `start` on, as an Arrow stream of strings that follows. `reasons`: why some of them have no text."""

    start: int
    reasons: dict[int, str]


class Done(msgspec.Struct, tag=True):
    """There are no more rows."""


Request = Setup | Parse | ReadRows | Data
Reply = Ready | Parsed | Failed | Need | Batch | Done

M = TypeVar("M")

REQUESTS: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class Channel:
    """One end of the socket. Raises EOFError when the other end has gone, TimeoutError when it is late.

    `largest` bounds a frame in bytes; `patience` is how many seconds the other end has to take one, None for ever.
    """

    def __init__(self, sock: socket.socket, *, largest: int, patience: float | None) -> None:
        self._socket = sock
        self._largest = largest
        self._patience = patience
        self._encoder = msgspec.msgpack.Encoder()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)

    def send(self, message: msgspec.Struct) -> None:
        """Send one message."""
        self.send_bytes(self._encoder.encode(message))

    def send_bytes(self, data: bytes | memoryview) -> None:
        """Send one raw frame."""
        self._socket.settimeout(self._patience)
        try:
            self._socket.sendall(_LENGTH.pack(len(data)))
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise EOFError from None

    def receive(self, decoder: msgspec.msgpack.Decoder[M], seconds: float | None = None) -> M:
        """The next message, which must come whole within `seconds`. Raises ValueError for anything unexpected."""
        return decoder.decode(self.receive_bytes(seconds))

    def receive_bytes(self, seconds: float | None = None) -> bytearray:
        """The next raw frame. Raises ValueError for one that is too large."""
        until = None if seconds is None else time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size, until))
        if length > self._largest:
            raise ValueError(f"a frame of {length} bytes; {self._largest} is the limit")
        return self._exactly(length, until)

    def _exactly(self, length: int, until: float | None) -> bytearray:
        frame = bytearray(length)
        view = memoryview(frame)
        while view:
            self._socket.settimeout(None if until is None else max(until - time.monotonic(), 0.001))
            try:
                received = self._socket.recv_into(view)
            except ConnectionResetError:
                received = 0
            if not received:
                raise EOFError
            view = view[received:]
        return frame

    def close(self) -> None:
        """Close this end; the other one reads EOF."""
        self._socket.close()
