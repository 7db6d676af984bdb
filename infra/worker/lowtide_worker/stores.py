"""One folder of a store: on disk, in S3 or in Blob Storage, all through obstore.

StoreError          the store refuses, or did not answer for minutes
  Missing           there is no such object
  Refused           the credentials are none, or may not do it
  Short             an object ends before it should
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, LocalStore, S3Store

from lowtide_worker.addresses import split_off_name, store_of

_T = TypeVar("_T")

CHUNK = 2 * 1024 * 1024
"""Bytes of requests that are read at a time. One more chunk is on its way meanwhile."""


class StoreError(Exception):
    """The store refuses, or did not answer for minutes."""


class Missing(StoreError):
    """There is no such object."""


class Refused(StoreError):
    """The credentials are none, or may not do it."""


class Short(StoreError):
    """The object ends before it should: it is not what was written."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object in a listing. `modified` is the store's time, in seconds since the epoch: on S3 in whole ones.

    `etag` is another one for other bytes, and "" where the store says none.
    """

    path: str
    size: int
    modified: float
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A whole object, and the store's time of it."""

    data: bytes
    modified: float


class Folder:
    """Everything below one address. What the store cannot do at once is tried for about three minutes.

    All methods raise StoreError, and Missing where an object has to be there.
    """

    def __init__(self, uri: str, store: AzureStore | LocalStore | S3Store) -> None:
        self.uri = uri.rstrip("/")
        self._store = store

    async def below(self, prefix: str) -> list[Found]:
        """All objects below a folder, by path."""
        with self._reported(prefix):
            batches = self._store.list(prefix)
            found = [
                Found(str(meta["path"]), int(meta["size"]), meta["last_modified"].timestamp(), meta["e_tag"] or "")
                async for batch in batches
                for meta in batch
            ]
        return sorted(found, key=lambda one: one.path)

    async def names(self, prefix: str) -> tuple[list[str], list[str]]:
        """The names of the folders, and of the objects, directly in a folder."""
        with self._reported(prefix):
            found = await self._store.list_with_delimiter_async(prefix)
        folders = [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]
        return sorted(folders), sorted(meta["path"].rpartition("/")[2] for meta in found["objects"])

    async def get(self, path: str) -> Content:
        with self._reported(path):
            got = await self._store.get_async(path)
            return Content(bytes(await got.bytes_async()), got.meta["last_modified"].timestamp())

    async def put(self, path: str, data: bytes) -> None:
        """Create or replace the object in one step."""
        with self._reported(path):
            await self._store.put_async(path, data, use_multipart=False)

    async def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create the object; False if there is one with other bytes.

        One with the same bytes counts as made here: an answer may have been lost, and the library asks again.
        """
        for _ in range(_CONFLICTS):
            try:
                with self._reported(path):
                    await self._store.put_async(path, data, mode="create", use_multipart=False)
                    return True
            except _Exists:
                # S3 also refuses while somebody else is writing, who may not finish: then there is nothing to be read.
                try:
                    return (await self.get(path)).data == data
                except Missing:
                    await asyncio.sleep(_CONFLICT_SECONDS)
        raise StoreError(f"{self.uri}/{path} can neither be made nor read: the store reports a conflict each time")

    async def lines(self, path: str, size: int, *, chunk: int = CHUNK) -> AsyncGenerator[list[bytes], None]:
        """The lines of an object of that size, without their ends, some thousand at a time.

        At most three chunks and the longest line are held. Each chunk is a read of its own: a reader may take hours.
        Raises Short too.
        """
        rest = b""
        ahead = asyncio.ensure_future(self._piece(path, 0, min(chunk, size)))
        try:
            for start in range(0, size, chunk):
                piece = await ahead
                if start + chunk < size:
                    end = min(start + 2 * chunk, size)
                    ahead = asyncio.ensure_future(self._piece(path, start + chunk, end))
                lines = (rest + piece if rest else piece).split(b"\n")
                rest = lines.pop()
                if lines:
                    yield lines
            if rest:
                yield [rest]
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def _piece(self, path: str, start: int, end: int) -> bytes:
        if start == end:
            return b""
        try:
            with self._reported(path):
                piece = bytes(await self._store.get_range_async(path, start=start, end=end))
        except (Missing, Refused):
            raise
        except StoreError:
            # What stores say of a range behind the end differs from one to the next.
            with self._reported(path):
                size = int((await self._store.head_async(path))["size"])
            if size < end:
                raise self._short(path, size, end) from None
            raise
        if len(piece) != end - start:
            raise self._short(path, start + len(piece), end)
        return piece

    def _short(self, path: str, size: int, end: int) -> Short:
        return Short(f"{self.uri}/{path} ends at byte {size}, before the {end} that it should have")

    @contextmanager
    def _reported(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise Missing(f"there is no {self.uri}/{path}") from None
        except AlreadyExistsError:
            raise _Exists from None
        except (BaseError, OSError, ValueError) as error:
            # obstore's messages show the whole request and what was answered; their first line names the reason.
            reason = str(error).partition("\n")[0][:300]
            refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
            raise (Refused if refused else StoreError)(f"{self.uri}/{path}: {reason}") from error


class _Exists(Exception):
    pass


_CONFLICTS = 5
_CONFLICT_SECONDS = 0.5


def open_folder(uri: str, environ: Mapping[str, str] | None = None) -> Folder:
    """The folder at `file://`, `s3://` or `abfs://`. Nothing is asked of the store yet; raises ValueError."""
    return Folder(uri, store_of(uri, os.environ if environ is None else environ))


def groups(items: Sequence[_T], size: int = 16) -> Iterator[Sequence[_T]]:
    """All items in their order, as many in a group as a store is asked for at the same time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def open_parent(uri: str, environ: Mapping[str, str] | None = None) -> tuple[Folder, str]:
    """The folder that an object's address lies in, and its name there."""
    parent, name = split_off_name(uri)
    return open_folder(parent, environ), name
