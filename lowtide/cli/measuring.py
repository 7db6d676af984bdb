"""`metrics`: what a root's runs are doing, for Prometheus."""

from __future__ import annotations

import click

from lowtide.cli.options import ends_well
from lowtide.cli.roots import open_root


@click.command()
@click.argument("job", type=click.Path(), required=False)
@click.option("--root", metavar="ADDRESS", help="The root itself, instead of a job that writes to it.")
@click.option("--write", is_flag=True, help="Also write it to metrics/lowtide.prom in the root.")
@ends_well
def metrics(job: str | None, root: str | None, write: bool) -> int:
    """Print what the runs of a root are doing and cost, as Prometheus and OpenMetrics read it.

    Open batches and their age, requests not answered yet, runs by state, this month's spending, caps, and when each job
    has published last. The cap of a job (budget.month_usd) is known only of the one that is given.
    """
    import time

    from lowtide import metrics as domain
    from lowtide.budget.caps import job_caps

    store, loaded = open_root(job, root)
    caps = job_caps(loaded.name, loaded.budget.month_usd) if loaded else ()
    text = domain.render(domain.snapshot(store, now=time.time(), caps=caps))
    if write:
        store.write(domain.PATH, text.encode())
    click.echo(text, nl=False)
    return 0
