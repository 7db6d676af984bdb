"""What an answer is known by: the question that was asked, and the content that it was asked about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

Keys: TypeAlias = npt.NDArray[np.uint64]
"""Shape (n, 2): the 16 bytes of each key as two big-endian numbers, so that their order is the order of the bytes."""

_DIGEST = 32


def question(operation_version: str, model: str, parameters: Mapping[str, object]) -> str:
    """16 hex digits of everything about a request but its document. Raises TypeError for what JSON cannot hold."""
    asked = [operation_version, model, dict(parameters)]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def keys_of(sha256: Sequence[str], fields: Sequence[Sequence[str | None]] = ()) -> Keys:
    """One key for each document: half of the hash of its content, and of its values of the fields in the prompt.

    `sha256` are hex digests; each of `fields` is as long. All 128 bits are compared wherever keys are: half as many
    could be made to collide by who writes the documents, and one would get the other's answer.
    Raises ValueError for what is no digest, and for fields of another length.
    """
    content = bytes.fromhex("".join(sha256))
    if len(content) != _DIGEST * len(sha256):
        raise ValueError(f"{len(sha256)} SHA-256 digests are {_DIGEST * len(sha256)} bytes, and not {len(content)}")
    if fields:
        contents = [content[at : at + _DIGEST] for at in range(0, len(content), _DIGEST)]
        told = map(b"".join, zip(contents, *[map(_told, values) for values in fields], strict=True))
        content = b"".join([hashlib.sha256(one).digest() for one in told])
    numbers = np.frombuffer(content, dtype=">u8").reshape(-1, _DIGEST // 8)
    return numbers[:, :2].astype(np.uint64)


def _told(value: str | None) -> bytes:
    """The value behind its length, so that no two rows of values look the same; None is no value at all."""
    if value is None:
        return b"-"
    data = value.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(data), data)
