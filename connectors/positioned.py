"""What seekable streams over something that is no file have in common."""

from __future__ import annotations

import io


class Positioned(io.RawIOBase):
    """A readable stream of `size` bytes that knows where it stands, in `at`. Moving it fetches nothing."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go elsewhere. Raises ValueError for a place before the start."""
        target = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        if target < 0:
            raise ValueError(f"cannot seek to {target}: before the start")
        self.at = target
        return target
