"""The figures that targets are set for, each computed from the results of a case: CPU, wall time and peak memory."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.case import Results


def cpu_ratio(over: tuple[str, int], under: tuple[str, int]) -> Callable[[Results], float]:
    """CPU of one variant in units of another's."""
    return lambda results: results[over].cpu / results[under].cpu


def wall_seconds(variant: tuple[str, int]) -> Callable[[Results], float]:
    """Wall time, where waiting for the disk is what is measured."""
    return lambda results: results[variant].wall


def cpu_seconds(variant: tuple[str, int]) -> Callable[[Results], float]:
    """CPU time."""
    return lambda results: results[variant].cpu


def rss_megabytes(variant: tuple[str, int]) -> Callable[[Results], float]:
    """Peak resident memory in MB of 10^6 bytes."""
    return lambda results: results[variant].rss / 1e6


def rss_growth(large: tuple[str, int], small: tuple[str, int]) -> Callable[[Results], float]:
    """Peak memory at one size in units of that at another."""
    return lambda results: results[large].rss / results[small].rss


def cpu_growth(large: tuple[str, int], small: tuple[str, int]) -> Callable[[Results], float]:
    """CPU for each document at one size, in units of that at another."""
    return lambda results: (results[large].cpu / large[1]) / (results[small].cpu / small[1])
