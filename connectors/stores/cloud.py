"""What S3 buckets and Blob Storage containers have in common as stores."""

from __future__ import annotations

import io
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Literal, NamedTuple, cast

import obstore
from obstore.store import ObjectStore

from lowtide.connectors.stores.failures import Failures
from lowtide.connectors.stores.listing import quoted
from lowtide.connectors.stores.paths import check_plain, is_plain
from lowtide.connectors.stores.readahead import in_order
from lowtide.connectors.stores.streams import PART, Condition, Parts, RangedReader, Upload
from lowtide.errors import NotFound, StoreError, Transient
from lowtide.records import FileContent, FileInfo

if TYPE_CHECKING:
    from obstore import UpdateVersion

_WINDOW = 64 * 1024 * 1024
_STREAM_BUFFER = 4 * 1024 * 1024
_TRIES = 5


class Head(NamedTuple):
    """What is known of an object without reading it; `attributes` hold its metadata."""

    size: int
    etag: str
    modified: datetime
    attributes: Mapping[str, str]


class CloudStore(ABC):
    """A `Store` over the keys of a bucket (on Azure: a container) that start with `prefix/`.

    obstore does the bulk of the work, and the service's own library what obstore cannot: keys with empty, `.` or `..`
    parts or control characters (they can be listed and read, never written), and files over `small` bytes.

    A conditional write says which writer it is in the object's metadata. So one whose answer was lost, or that was
    refused because another request was in the way, is told from a lost race by looking, never by guessing.

    Keys that end in a slash, which consoles make to show a folder, are not objects here.
    """

    _failures: ClassVar[Failures]
    _stamp: ClassVar[str]
    """The name under which a writer's stamp stands in an object's metadata."""

    def __init__(self, root: str, prefix: str, bucket: ObjectStore, *, readers: int = 8, small: int = PART) -> None:
        prefix = prefix.rstrip("/")
        self._base = f"{prefix}/" if prefix else ""
        self._uri = f"{root}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._readers = readers
        self._small = small

    @property
    def uri(self) -> str:
        """The address of the bucket and the prefix."""
        return self._uri

    def uri_of(self, path: str) -> str:
        """The whole address of one object, its key as it is: nothing is percent-encoded."""
        return f"{self._uri}/{path}"

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[FileInfo]:
        """Objects in the order of their keys, a page at a time."""
        with self._failures.translated(self._uri, "list"):
            yield from self._listed(prefix, after)

    def info(self, path: str) -> FileInfo | None:
        """The object's size, etag and time, or None if there is none (or no such bucket: HEAD does not say)."""
        key, uri = self._key(path), self.uri_of(path)
        with self._failures.translated(uri, "read"):
            head = self._head(key)
        return FileInfo(path, uri, head.size, head.etag, head.modified) if head else None

    def read(self, path: str) -> bytes:
        """The whole object."""
        key, uri = self._key(path), self.uri_of(path)
        with self._failures.translated(uri, "read"):
            if not is_plain(key):
                return self._odd_bytes(key)
            found = obstore.get(self._bucket, key)
            if self._is_folder(found.attributes):
                raise NotFound(f"there is no object {uri!r}: it is a folder", uri=uri)
            return found.bytes().to_bytes()

    def open(self, path: str) -> BinaryIO:
        """A seekable stream, fetched 4 MiB at a time. Reading raises StoreError once the object has been replaced."""
        info = self.info(path)
        if info is None:
            raise NotFound(f"there is no object {self.uri_of(path)!r}", uri=self.uri_of(path))
        reader = RangedReader(lambda start, end: self._range(info, start, end), info.size)
        return cast(BinaryIO, io.BufferedReader(reader, _STREAM_BUFFER))

    def read_many(self, files: Iterable[FileInfo], *, largest: int) -> Iterator[FileContent]:
        """Each file's bytes, reading ahead up to 64 MiB.

        Raises Transient or StoreError for what would fail every file alike: no network, no bucket, bad credentials.
        """
        return in_order(
            files,
            lambda info: self._content(info, largest),
            threads=self._readers,
            weight=lambda info: min(info.size, largest),
            window=_WINDOW,
        )

    def write(self, path: str, data: bytes) -> None:
        """Create or replace the object in one step."""
        key = self._writable(path)
        with self._failures.translated(self.uri_of(path), "write"):
            self._put(key, data)

    @contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A stream into one PUT, or above 8 MiB an upload in parts, that is completed when the block ends."""
        key, uri = self._writable(path), self.uri_of(path)
        stamp = secrets.token_hex(16)
        parts = self._parts(key, stamp)
        upload = Upload(parts, put_small=lambda data: self._put(key, data), part=self._small)
        try:
            with self._failures.translated(uri, "write"):
                yield cast(BinaryIO, upload)
                self._complete(upload, parts, key, stamp)
        except BaseException:
            upload.discard()
            raise
        finally:
            upload.end()

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object unless it exists (`If-None-Match: *`); of any number of writers one wins."""
        key = self._writable(path)
        return self._conditionally(
            key, self.uri_of(path), None, lambda stamp: self._put_stamped(key, data, Condition(None), stamp)
        )

    def replace(self, path: str, source: Path, *, expected: str | None) -> bool:
        """Upload `source` if the object's etag is still `expected` (`If-Match`, or `If-None-Match: *` for None).

        `source` stays as it is.
        """
        key = self._writable(path)
        condition = Condition(expected)
        return self._conditionally(
            key, self.uri_of(path), expected, lambda stamp: self._put_file(key, source, condition, stamp)
        )

    def delete(self, path: str) -> None:
        """Remove the object; no error if there is none."""
        key = self._writable(path)
        with self._failures.translated(self.uri_of(path), "delete"):
            self._delete(key)

    @abstractmethod
    def _listed(self, prefix: str, after: str) -> Iterator[FileInfo]:
        """The listing, in the libraries' own errors."""

    @abstractmethod
    def _odd_head(self, key: str) -> Head | None:
        """`_head` of a key that is not plain."""

    @abstractmethod
    def _odd_bytes(self, key: str, span: tuple[int, int] | None = None, etag: str = "") -> bytes:
        """The object under a key that is not plain, or the span from start to end, if its etag is still the same."""

    @abstractmethod
    def _parts(self, key: str, stamp: str) -> Parts:
        """An upload of the object in parts."""

    @abstractmethod
    def _delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""

    def _is_folder(self, attributes: Mapping[str, str]) -> bool:
        """Whether an object only stands for a folder."""
        return False

    def _put(self, key: str, data: bytes) -> None:
        obstore.put(self._bucket, key, data, use_multipart=False)

    def _put_stamped(self, key: str, data: bytes, condition: Condition, stamp: str) -> None:
        mode: Literal["create"] | UpdateVersion = "create" if condition.etag is None else {"e_tag": condition.etag}
        obstore.put(self._bucket, key, data, mode=mode, use_multipart=False, attributes={self._stamp: stamp})

    def _put_file(self, key: str, source: Path, condition: Condition, stamp: str) -> None:
        size = source.stat().st_size
        if size <= self._small:
            self._put_stamped(key, source.read_bytes(), condition, stamp)
        else:
            self._put_large(key, source, size, condition, stamp)

    def _put_large(self, key: str, source: Path, size: int, condition: Condition, stamp: str) -> None:
        upload = Upload(self._parts(key, stamp), put_small=lambda data: None, part=max(PART, size // 9000))
        try:
            with source.open("rb") as body:
                while data := body.read(PART):
                    upload.write(data)
            upload.commit(condition)
        except BaseException:
            upload.discard()
            raise
        finally:
            upload.end()

    def _key(self, path: str) -> str:
        if not path:
            raise StoreError(f"an object of {self._uri!r} needs a name", uri=self._uri)
        return self._base + path

    def _writable(self, path: str) -> str:
        check_plain(path, self._uri)
        return self._base + path

    def _head(self, key: str) -> Head | None:
        """What is there now; None if nothing is."""
        if not is_plain(key):
            return self._odd_head(key)
        try:
            found = obstore.get(self._bucket, key, options={"head": True})
        except FileNotFoundError:
            return None
        if self._is_folder(found.attributes):
            return None
        meta = found.meta
        return Head(meta["size"], quoted(meta["e_tag"]), meta["last_modified"], found.attributes)

    def _complete(self, upload: Upload, parts: Parts, key: str, stamp: str) -> None:
        try:
            upload.commit()
        except self._failures.raised as error:
            head = self._head(key) if self._failures.explain(error).vanished else None
            ours = head is not None and head.attributes.get(self._stamp) == stamp
            if not ours and (head is None or not parts.overtaken(head.etag)):
                raise

    def _range(self, info: FileInfo, start: int, end: int) -> bytes:
        key = self._key(info.path)
        with self._failures.translated(info.uri, "read"):
            if not is_plain(key):
                return self._odd_bytes(key, (start, end), info.etag)
            options: obstore.GetOptions = {"range": (start, end), "if_match": info.etag}
            return obstore.get(self._bucket, key, options=options).bytes().to_bytes()

    def _content(self, info: FileInfo, largest: int) -> FileContent:
        if info.size > largest:
            return FileContent(info, b"", f"{info.size} bytes, more than the {largest} that are allowed")
        key = self._key(info.path)
        try:
            if not is_plain(key):
                return FileContent(info, self._odd_bytes(key))
            found = obstore.get(self._bucket, key)
            if found.meta["size"] > largest:
                return FileContent(info, b"", f"grew past the {largest} bytes that are allowed before it was read")
            return FileContent(info, found.bytes().to_bytes())
        except self._failures.raised as error:
            told = self._failures.reported(error, info.uri, "read")
            if self._failures.explain(error).wholesale:
                raise told from self._failures.cause(error)
            return FileContent(info, b"", str(told))

    def _conditionally(self, key: str, uri: str, expected: str | None, put: Callable[[str], None]) -> bool:
        """Try a conditional write until it is known who has won."""
        stamp = secrets.token_hex(16)
        last: Exception | None = None
        for attempt in range(_TRIES):
            time.sleep(0.05 * (2**attempt - 1))
            try:
                put(stamp)
                return True
            except self._failures.raised as error:
                failure, last = self._failures.explain(error), self._failures.cause(error)
                if not (failure.conflict or failure.passing or failure.missing or failure.vanished):
                    raise self._failures.reported(error, uri, "write") from last
            with self._failures.translated(uri, "write"):
                head = self._head(key)
            if head is not None and head.attributes.get(self._stamp) == stamp:
                return True
            if (head.etag if head else None) != expected:
                return False
        raise Transient(f"cannot write {uri!r} now: no answer in {_TRIES} tries said who had written it") from last
