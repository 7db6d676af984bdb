"""Backfills: a job over many past windows, with one plan, one approval and one cap over all of them."""

from __future__ import annotations

from lowtide.backfill.allotments import Allotment, Allotments
from lowtide.backfill.asking import REPROCESS, Reprocess, Span, Wanted, in_order, span_of, wanted, windows_of
from lowtide.backfill.driving import Advance, Drive, Ended, Standing
from lowtide.backfill.opening import (
    Opened,
    approve,
    asked_of,
    close_window,
    is_over,
    open_window,
    settle_ended,
    stop_windows,
)
from lowtide.backfill.planning import PlannedWindow, plan_backfill, plan_window, with_windows
from lowtide.backfill.record import (
    Backfill,
    WindowPlan,
    conclude,
    going_on,
    last_asked,
    read_backfill,
    write_backfill,
)
from lowtide.backfill.states import WindowState, window_states

__all__ = [
    "REPROCESS",
    "Advance",
    "Allotment",
    "Allotments",
    "Backfill",
    "Drive",
    "Ended",
    "Opened",
    "PlannedWindow",
    "Reprocess",
    "Span",
    "Standing",
    "Wanted",
    "WindowPlan",
    "WindowState",
    "approve",
    "asked_of",
    "close_window",
    "conclude",
    "going_on",
    "in_order",
    "is_over",
    "last_asked",
    "open_window",
    "plan_backfill",
    "plan_window",
    "read_backfill",
    "settle_ended",
    "span_of",
    "stop_windows",
    "wanted",
    "window_states",
    "windows_of",
    "with_windows",
    "write_backfill",
]
