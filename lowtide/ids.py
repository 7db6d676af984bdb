"""Names that never change: of documents, runs, attempts and the records inside a shard.

All are cut from SHA-256, so they are safe in paths, in provider ids and in URIs, and say nothing about the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson

RECORD_ID_LENGTH = 17
"""`r` + seven digits of the ordinal + `x` + eight hex digits of the document's hash; letters and digits only."""


def document_id(uri: str, key: str) -> str:
    """32 hex digits of the document's address and, inside a file of rows, its row key."""
    return hashlib.sha256(f"{uri}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def marker(salt: bytes, content_sha256: str) -> str:
    """What stands around the document in its prompt: stable for the same content, not to be guessed by its author."""
    return hashlib.sha256(salt + content_sha256.encode()).hexdigest()[:16]


def run_id(identity: Mapping[str, object]) -> str:
    """16 hex digits of what a run reads and asks."""
    return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def token(run: str, nonce: str, shard: int, attempt: int) -> str:
    """The name of one attempt at one shard, the same after a crash. `nonce` is that of the run's plan.

    Letters, digits and `-`, at most 63 characters: fit for a Bedrock jobName and clientRequestToken, for metadata
    and for a folder.
    """
    return f"lt-{run}-{nonce}-s{shard:05d}-a{attempt}"


def record_id(ordinal: int, content_sha256: str) -> str:
    """The id of a record: its ordinal among its shard's records, and a check that the answer is that document's."""
    return f"r{ordinal:07d}x{content_sha256[:8]}"


def ordinal_of(record: str) -> int:
    """The ordinal inside a record id, or -1 if this is no record id of ours."""
    digits = record[1:8]
    if len(record) != RECORD_ID_LENGTH or record[0] != "r" or record[8] != "x" or not digits.isdecimal():
        return -1
    return int(digits)
