"""The HTML report of a run: one page that loads nothing, runs no script, and trusts nothing that it shows."""

from lowtide.report.page import write_report
from lowtide.report.records import ReportMeta, ShardTime

__all__ = ["ReportMeta", "ShardTime", "write_report"]
