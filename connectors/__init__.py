"""The outside world: stores, formats, backends and tables, each behind a protocol of `lowtide.protocols`."""
