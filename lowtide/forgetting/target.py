"""Which documents are to be forgotten."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lowtide import ids
from lowtide.errors import ConfigError

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Target:
    """All documents at an address, or one: a row of the file there, by its key, or whichever has this id.

    `uri` is as `document_uri` of the results shows it, "" where only the `document_id` is known.
    """

    uri: str
    document_id: str = ""

    @classmethod
    def of(cls, document: str, key: str | None = None) -> Target:
        """What a user names: an address, with the key of a row or without, or a `document_id`.

        Raises ConfigError where nothing is named, and for a key beside a `document_id`, which stands for one row by
        itself.
        """
        if not document.strip():
            raise ConfigError("--document: it is empty; expected a document_uri or document_id, as results show them")
        if key is not None and not key:
            raise ConfigError("--key: it is empty; leave it out to mean all that is at the address")
        if _ID.fullmatch(document):
            if key is not None:
                raise ConfigError(
                    f"--key: found beside {document!r}, which is a document_id, and names one document by itself; a "
                    "key goes with the address of a file of rows"
                )
            return cls("", document)
        return cls(document, "" if key is None else ids.document_id(document, key))

    def found_in(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a table with `document_id` and `document_uri` are of these documents."""
        name, wanted = ("document_id", self.document_id) if self.document_id else ("document_uri", self.uri)
        found: npt.NDArray[np.bool_] = (
            pc.fill_null(pc.equal(table[name], wanted), fill_value=False).to_numpy().astype(np.bool_)
        )
        return found

    def lies_in(self, files: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a listing, by `uri`, are the files that may hold these documents."""
        if self.uri:
            found: npt.NDArray[np.bool_] = pc.equal(files["uri"], self.uri).to_numpy().astype(np.bool_)
            return found
        return self.is_file_in(files)

    def is_file_in(self, files: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a listing are one of these documents themselves, and not only where rows are."""
        if not self.document_id:
            return self.lies_in(files)
        wanted = self.document_id
        return np.array([ids.document_id(uri, "") == wanted for uri in files["uri"].to_pylist()], np.bool_)

    def mark(self, salt: bytes) -> str:
        """32 hex digits that stand for the target in records. Without the root's salt they say nothing to anybody."""
        named = (self.document_id or self.uri).encode("utf-8", "surrogatepass")
        return hmac.new(salt, named, "sha256").hexdigest()[:32]
