"""`show` and `report`: what a window's tables hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import click
import pyarrow.parquet as pq

from lowtide import engine
from lowtide.cli import views
from lowtide.cli.running import never_ran, prepare
from lowtide.engine.publishing import results_path
from lowtide.errors import ConfigError
from lowtide.plainjson import plain_json
from lowtide.plan import Work
from lowtide.reporting import report_of


def show(job: str, window: str, *, rows: int, only: str | None, as_json: bool) -> int:
    """Print the first rows of the window's results."""
    work = prepare(job, window, priced=False, keyed=False)
    if work.root.info(results_path(work.job, work.window.name)) is None and engine.find_run(work) is None:
        raise never_ran(work, job, window)
    found = list(islice(_rows(work, only), rows))
    if as_json:
        click.echo(plain_json(found).decode())
    else:
        key = work.reading.get("id")
        views.show_rows(found, key=key if isinstance(key, str) and key in work.fields else "")
        if not found:
            click.echo("no such rows", err=True)
    return 0


def _rows(work: Work, only: str | None) -> Iterator[Mapping[str, object]]:
    path = results_path(work.job, work.window.name)
    if work.root.info(path) is None:
        raise ConfigError(f"{work.root.uri_of(path)}: nothing has been published for this window yet")
    with work.root.open(path) as source:
        for batch in pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                if only is None or row["status"] == only:
                    yield row


def report(job: str, window: str, *, out: str | None) -> int:
    """Write the report of the window's last run."""
    work = prepare(job, window, priced=False, keyed=False)
    run = engine.find_run(work)
    if run is None:
        raise never_ran(work, job, window)
    if not run.state.published_at:
        raise ConfigError(f"run {run.plan.run_id} of job {work.job!r} has published nothing yet: see `lowtide status`")
    if out == "-":
        report_of(run, sys.stdout.buffer)
        return 0
    path = Path(out or f"{work.job}-{work.window.name}.html")
    try:
        with path.open("wb") as page:
            report_of(run, page)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    click.echo(str(path))
    return 0
