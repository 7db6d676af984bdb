"""From a provider's output to rows: parse, validate, join, price, sort, publish. One shard in memory at a time."""

from __future__ import annotations

import os

import pyarrow as pa

if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
    # pyarrow's own choice, mimalloc, hands large columns back to the kernel and gets them again, cleared, for the next
    # shard: a sixth more CPU here, and 80 MB more at the peak (docs/operations/performance.md).
    pa.set_memory_pool(pa.system_memory_pool())
