"""The command line. Nothing heavy is imported before a command needs it, so that help is instant."""

from __future__ import annotations

from lowtide.cli.group import main

__all__ = ["main"]
