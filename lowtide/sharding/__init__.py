"""From documents to shards: lines by splicing, cut at a backend's limits, with an index to join answers back."""

from __future__ import annotations

from lowtide.sharding.builder import ShardBuilder
from lowtide.sharding.lines import LineTemplate, line_template
from lowtide.sharding.shard import BuiltShard, Position

__all__ = ["BuiltShard", "LineTemplate", "Position", "ShardBuilder", "line_template"]
