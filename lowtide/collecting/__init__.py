"""From a provider's output to rows: parse, validate, join, price, sort, publish. One shard in memory at a time."""
