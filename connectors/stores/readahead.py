"""Do work on a stream ahead of its consumer, in threads, and hand it over in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    items: Iterable[T], work: Callable[[T], R], *, threads: int, weight: Callable[[T], int], window: int
) -> Iterator[R]:
    """`work(item)` for each item, in the order of the items, `threads` at a time.

    Results that wait are bounded: by `window`, the sum of their weights (one item is always let in), and by 8 for each
    thread. What `work` raises is raised in its place in the order and ends the stream; what `items` raises, at once.
    """
    waiting: deque[tuple[Future[R], int]] = deque()
    held = 0
    pool = ThreadPoolExecutor(threads, thread_name_prefix="lowtide-read")
    try:
        for item in items:
            cost = weight(item)
            while waiting and (held + cost > window or len(waiting) >= 8 * threads):
                first, freed = waiting.popleft()
                held -= freed
                yield first.result()
            waiting.append((pool.submit(work, item), cost))
            held += cost
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)
