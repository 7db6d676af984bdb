"""`backfill`: a job over past windows, planned, approved and paid as one thing."""

from __future__ import annotations

import click

from lowtide.cli.options import ends_well, job_argument, json_option


@click.command()
@job_argument
@click.option("--from", "first", required=True, metavar="WINDOW", help="The first day, week or month: 2026-01-01.")
@click.option(
    "--to", "last", required=True, metavar="WINDOW", help="The last day, week or month, to its end: 2026-06-30."
)
@click.option("--by", metavar="LENGTH", help="How long each window is: day, week, 2w.  [default: that of schedule]")
@click.option(
    "--reprocess",
    type=click.Choice(["missing", "failed", "changed", "all"]),
    default="missing",
    show_default=True,
    help="Which published windows are run again: those with documents that came since, with rows without an answer, "
    "asked with another prompt or model, or all of them anew. What was never published is run in any case.",
)
@click.option(
    "--max-active", default=3, show_default=True, type=click.IntRange(1, 50), help="Windows open at the same time."
)
@click.option("--max-usd", metavar="USD", help="What all windows together may cost at most.")
@click.option("--newest-first", is_flag=True, help="Begin with the last window.")
@click.option("--exact", is_flag=True, help="Read all documents for the plan, and not a sample.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and do nothing.")
@click.option("--yes", is_flag=True, help="Do what the plan shows without asking.")
@click.option("--again", is_flag=True, help="Ask once more what this command has asked before: for failed and all.")
@click.option("--cancel", is_flag=True, help="Stop what is open; windows that are done are kept.")
@json_option
@ends_well
def backfill(
    job: str,
    first: str,
    last: str,
    by: str | None,
    reprocess: str,
    max_active: int,
    max_usd: str | None,
    newest_first: bool,
    exact: bool,
    dry_run: bool,
    yes: bool,
    again: bool,
    cancel: bool,
    as_json: bool,
) -> int:
    """Run a job over past windows, or go on with that.

    --from and --to name windows, and both are part of it: --to 2026-06-30 goes to the end of that day. Windows that
    reach over the ends are run whole. One plan over all windows is shown first, and nothing is bought before it is
    approved. The same command goes on after a stop, and once all is done it buys nothing (exit code 3).
    """
    if cancel and dry_run:
        from lowtide.errors import ConfigError

        raise ConfigError(
            "--cancel: found together with --dry-run; expected one or the other: --dry-run alone shows the windows, "
            "--cancel stops what is open of them"
        )
    from lowtide.cli import backfill_run

    asked = backfill_run.Asking(
        job=job,
        first=first,
        last=last,
        by=by,
        reprocess=reprocess,
        max_active=max_active,
        max_usd=max_usd,
        newest_first=newest_first,
        exact=exact,
        dry_run=dry_run,
        yes=yes,
        again=again,
        as_json=as_json,
    )
    return backfill_run.cancel(asked) if cancel else backfill_run.run(asked)
