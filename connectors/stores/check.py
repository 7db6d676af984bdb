"""The start-up check: a journal may only be kept where put-if-absent holds."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from lowtide.errors import LowtideError, StoreError, UnsafeStore
from lowtide.protocols import Store

_RACERS = 8


def verify(store: Store) -> None:
    """Raise UnsafeStore unless put-if-absent holds: one write after the other, and eight at once.

    Some S3-compatible stores overwrite, or let two writers win, without a word; others refuse the condition. The two
    objects, `.lowtide-check-<token>`, are removed again. A store that keeps the rule but for one time in many passes.
    Raises Transient, or StoreError (no such bucket, no permission), where even a plain write fails.
    """
    paths = [f".lowtide-check-{secrets.token_hex(16)}" for _ in range(2)]
    try:
        seen = _in_turn(store, paths[0]) or _at_once(store, paths[1])
    finally:
        for path in paths:
            with suppress(LowtideError):
                store.delete(path)
    if seen:
        raise UnsafeStore(
            f"{store.uri!r} cannot hold a run: {seen}. What is paid for could be paid twice. Use Amazon S3, a local "
            "disk, or another store that honours If-None-Match on PUT",
            uri=store.uri,
        )


def _in_turn(store: Store, path: str) -> str:
    """What is wrong with two writes one after the other, or ""."""
    first, second = secrets.token_bytes(16), secrets.token_bytes(16)
    try:
        created = store.put_if_absent(path, first)
    except StoreError as error:
        store.write(path, first)
        return f"it takes a plain write, but none with put-if-absent ({error})"
    if not created:
        return "it said that a new, random name exists already"
    again = store.put_if_absent(path, second)
    found = store.read(path)
    if found == second:
        said = "said that it had created" if again else "said that it had not touched"
        return f"a second put-if-absent overwrote the object, and {said} it"
    if again:
        return "its put-if-absent created the same object twice"
    return "" if found == first else "what was read back is not what was written"


def _at_once(store: Store, path: str) -> str:
    """What is wrong with eight writes at the same time, or ""."""
    tokens = [secrets.token_bytes(16) for _ in range(_RACERS)]
    with ThreadPoolExecutor(_RACERS) as pool:
        won = list(pool.map(lambda token: store.put_if_absent(path, token), tokens))
    winners = [token for token, win in zip(tokens, won, strict=True) if win]
    if len(winners) != 1:
        return f"of {_RACERS} writers at once with put-if-absent, {len(winners)} were told that they had won"
    return (
        "" if store.read(path) == winners[0] else "a writer that had lost a put-if-absent overwrote the winner's object"
    )
