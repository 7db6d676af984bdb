"""A folder as a store: objects are files, and what makes them safe is link, rename and flock."""

# pathlib costs microseconds a call, and this runs for every object.
# ruff: noqa: PTH100, PTH103, PTH105, PTH108, PTH112, PTH120, PTH123

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

from lowtide.connectors.stores.local_errors import ENDED_BY_THE_DISK, reported, translated
from lowtide.connectors.stores.local_walk import info_of, is_temporary, walk
from lowtide.connectors.stores.paths import check_inside, check_plain
from lowtide.errors import NotFound, StoreError
from lowtide.records import FileContent, FileInfo

Sync = Literal["none", "data", "full"]

_BUFFER = 1024 * 1024
_ESCAPED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
# What RFC 8089 and pathlib's as_uri leave as it is in a path.
_URI_SAFE = "/:@&=+$,;!*'()~"


class LocalStore:
    """A `Store` over a folder, which is made when something is first written.

    Objects are complete as soon as they are visible, whenever the process is killed: they are written under a hidden
    name (`.lowtide-*.tmp`, which `list` never shows) and linked or renamed to their own. A killed process may leave
    such a hidden file behind; it is safe to delete once it is a day old.

    `sync` says what a returned write survives. "none": the death of the process. "data": also the loss of power, but
    for a name that was given in the last seconds (ext4 commits names every 5 s, and with the next synced write:
    https://docs.kernel.org/admin-guide/ext4.html, `commit`). "full": the loss of power, at a second flush per write.

    The etag is made of the time of modification, the size and the inode. Links to files are followed, and links to
    folders too, unless they lead to a folder above them. Names that are not UTF-8 are shown with `\\xNN` escapes.
    Unlike on S3, an object `a` and an object `a/b` cannot both exist.
    """

    def __init__(self, root: Path, *, sync: Sync = "data") -> None:
        self._root = os.path.abspath(root)
        self._uri = "file://" + quote(os.fsencode(self._root), safe=_URI_SAFE).rstrip("/")
        self._sync = sync

    @property
    def uri(self) -> str:
        """`file:///the/folder`, percent-encoded as RFC 8089 says."""
        return self._uri

    def uri_of(self, path: str) -> str:
        """The whole address of one object."""
        return f"{self._uri}/{quote(path, safe=_URI_SAFE)}"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        """Objects in the order in which S3 lists them. Holds the names of the folders on the way down, no more.

        A folder that cannot be read raises StoreError; files that vanish meanwhile are left out.
        """
        for path, native in walk(self._root, prefix, after):
            uri = self.uri_of(path)
            with translated(uri, "list"):
                info = info_of(native, path, uri)
            if info:
                yield info

    def info(self, path: str) -> FileInfo | None:
        """The object's size, etag and time, or None if there is none."""
        uri = self.uri_of(path)
        try:
            with translated(uri, "read"):
                return info_of(self._native(path), path, uri)
        except NotFound:
            return None

    def read(self, path: str) -> bytes:
        """The whole object."""
        with translated(self.uri_of(path), "read"), open(self._native(path), "rb", buffering=0) as stream:
            return stream.read()

    def open(self, path: str) -> BinaryIO:
        """A seekable stream. It goes on showing the object as it was opened, even when that is replaced."""
        with translated(self.uri_of(path), "read"):
            return open(self._native(path), "rb", buffering=_BUFFER)

    def read_many(self, files: Iterable[FileInfo], *, largest: int) -> Iterator[FileContent]:
        """Each file's bytes, one file after the other: threads cost more than they gain on a warm cache."""
        for info in files:
            yield self._content(info, largest)

    def write(self, path: str, data: bytes) -> None:
        """Create or replace the object in one step."""
        target = self._target(path)
        with translated(self.uri_of(path), "write"):
            self._publish(self._staged(target, data), target)

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A buffered stream into a hidden file that takes the object's name when the block ends."""
        target, uri = self._target(path), self.uri_of(path)
        with translated(uri, "write"):
            temporary, descriptor = _create_beside(target)
        try:
            with open(descriptor, "wb", buffering=_BUFFER, closefd=False) as stream:
                yield stream
            with translated(uri, "write"):
                self._flush(descriptor)
                self._publish(temporary, target)
        except OSError as error:
            if error.errno in ENDED_BY_THE_DISK and error.filename is None:
                raise StoreError(f"cannot write {uri!r}: {error.strerror}", uri=uri) from error
            raise
        finally:
            os.close(descriptor)
            _remove(temporary)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object unless it exists; of any number of writers, in any number of processes, one wins."""
        target, uri = self._target(path), self.uri_of(path)
        with translated(uri, "write"):
            if os.path.lexists(target):
                return _lost(target, uri)
            temporary = self._staged(target, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return _lost(target, uri)
            finally:
                _remove(temporary)
            self._flush_names(target)
        return True

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        """Copy `source` into the object's place if its etag is still `expected`. `source` stays as it is.

        The comparison and the step are one under a lock on the folder, which `write`, `writer` and `delete` take too.
        """
        target, uri = self._target(path), self.uri_of(path)
        with open(source, "rb", buffering=0) as stream, translated(uri, "write"):
            temporary, descriptor = _create_beside(target)
            try:
                with open(descriptor, "wb", buffering=0, closefd=False) as out:
                    shutil.copyfileobj(stream, out, _BUFFER)
                self._flush(descriptor)
                if not _take_place(temporary, target, expected):
                    return False
            finally:
                os.close(descriptor)
                _remove(temporary)
            self._flush_names(target)
        return True

    def delete(self, path: str) -> None:
        """Remove the object; its folder stays."""
        target = self._target(path)
        with translated(self.uri_of(path), "delete"), suppress(FileNotFoundError, NotADirectoryError):
            if os.path.isdir(target):
                return
            with _locked(os.path.dirname(target)):
                os.unlink(target)

    def _native(self, path: str) -> str:
        check_inside(path, self._uri)
        native = f"{self._root}/{path}"
        if "\\x" in path and not os.path.lexists(native):
            native = _ESCAPED_BYTE.sub(lambda byte: chr(0xDC00 + int(byte[1], 16)), native)
        return native

    def _target(self, path: str) -> str:
        check_plain(path, self._uri)
        if is_temporary(path.rpartition("/")[2]):
            raise StoreError(f"{path!r} cannot be written in {self._uri!r}: such names are kept for unfinished files")
        return f"{self._root}/{path}"

    def _content(self, info: FileInfo, largest: int) -> FileContent:
        if info.size > largest:
            return FileContent(info, b"", f"{info.size} bytes, more than the {largest} that are allowed")
        try:
            with open(self._native(info.path), "rb", buffering=0) as stream:
                # One byte more than there should be: the end shows without a second call, and so does growth.
                data = stream.read(info.size + 1)
                while len(data) > info.size and len(data) <= largest:
                    more = stream.read(largest + 1 - len(data))
                    if not more:
                        break
                    data += more
        except OSError as error:
            failure = reported(error, info.uri, "read")
            if isinstance(failure, NotFound):
                return FileContent(info, b"", str(failure))
            # Not the document's fault, and mended without changing it: a row that says so would be there to stay.
            raise failure from error
        if len(data) > largest:
            return FileContent(info, b"", f"grew past the {largest} bytes that are allowed while it was read")
        return FileContent(info, data)

    def _staged(self, target: str, data: bytes) -> str:
        temporary, descriptor = _create_beside(target)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            self._flush(descriptor)
        except BaseException:
            _remove(temporary)
            raise
        finally:
            os.close(descriptor)
        return temporary

    def _publish(self, temporary: str, target: str) -> None:
        try:
            with _locked(os.path.dirname(target)):
                os.replace(temporary, target)
        except BaseException:
            _remove(temporary)
            raise
        self._flush_names(target)

    def _flush(self, descriptor: int) -> None:
        if self._sync != "none":
            os.fsync(descriptor)

    def _flush_names(self, target: str) -> None:
        if self._sync == "full":
            folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _create_beside(target: str) -> tuple[str, int]:
    """A new hidden file in the target's folder, which is made if need be: its name and descriptor."""
    folder = os.path.dirname(target)
    temporary = f"{folder}/.lowtide-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return temporary, os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        return temporary, os.open(temporary, flags, 0o666)


def _take_place(temporary: str, target: str, expected: str | None) -> bool:
    if expected is None:
        try:
            os.link(temporary, target)
        except FileExistsError:
            return _lost(target, target)
        return True
    with _locked(os.path.dirname(target)):
        found = info_of(target, target, target)
        if found is None or found.etag != expected:
            return False
        os.replace(temporary, target)
    return True


def _lost(target: str, uri: str) -> Literal[False]:
    if os.path.isdir(target):
        raise StoreError(f"cannot write {uri!r}: there is a folder of that name", uri=uri)
    return False


def _remove(temporary: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(temporary)


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the folder's lock, which the kernel lets go of when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
