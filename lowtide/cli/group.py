"""The commands, their options and their help; what they do is in the modules beside this one."""

from __future__ import annotations

import os
import sys

import click

from lowtide import __version__
from lowtide.cli.approving import approve
from lowtide.cli.backfilling import backfill
from lowtide.cli.deploying import deploy
from lowtide.cli.forgetting import forget
from lowtide.cli.infra import infra
from lowtide.cli.ledgers import ledger
from lowtide.cli.measuring import metrics
from lowtide.cli.options import cache_options, ends_well, job_argument, json_option, one_of, window_option
from lowtide.cli.pricing import prices
from lowtide.cli.reconciling import reconcile
from lowtide.cli.root_status import root_status_options
from lowtide.cli.spending import spend
from lowtide.errors import ConfigError

no_cache_option, refresh_option = cache_options
direct_option = click.option("--direct", is_flag=True, help="Run the engine without Prefect.")
wait_option = click.option(
    "--wait/--no-wait", default=True, help="Wait for the answers, or submit and return.", show_default=True
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 2 bad input, 3 nothing to do or stale, 4 done but rows are missing, 5 over budget.",
)
@click.version_option(__version__, prog_name="lowtide")
def main() -> None:
    """Batch inference over document collections, never paid twice, accounted for to the token."""
    if os.environ.get("LOWTIDE_LOG"):
        from lowtide import logs

        try:
            logs.configure()
        except ConfigError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)


@main.command()
@click.argument("path", type=click.Path(), default="lowtide.yaml", required=False)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@ends_well
def init(path: str, force: bool) -> int:
    """Write a job file to start from, with comments."""
    from lowtide.cli import setup

    return setup.init(path, force=force)


@main.command()
@ends_well
def schema() -> int:
    """Print the JSON Schema of job files, for editors."""
    from lowtide.cli import setup

    return setup.schema()


@main.command()
@job_argument
@window_option
@click.option("--out", type=click.Path(), help="Write the plan to a file, for lowtide apply.")
@click.option("--quick", is_flag=True, help="Read a sample of the documents, and not all of them.")
@no_cache_option
@refresh_option
@json_option
@ends_well
def plan(job: str, window: str, out: str | None, quick: bool, no_cache: bool, refresh: bool, as_json: bool) -> int:
    """Show what a run would read, ask and cost at each backend, and which one is chosen.

    Reads all documents, spends nothing, and writes nothing but the file that --out names.
    """
    from lowtide.cli import planning

    one_of(no_cache, refresh)
    return planning.plan(job, window, out=out, quick=quick, use_cache=not no_cache, refresh=refresh, as_json=as_json)


@main.command()
@click.argument("plan", type=click.Path())
@direct_option
@wait_option
@json_option
@ends_well
def apply(plan: str, direct: bool, wait: bool, as_json: bool) -> int:
    """Do exactly what a plan says that `lowtide plan --out` has written.

    Refuses, with exit code 3, if the documents, the prompts, the model, the prices or the job file's settings are no
    longer those of the plan.
    """
    from lowtide.cli import planning

    return planning.apply(plan, direct=direct, wait=wait, as_json=as_json)


@main.command()
@job_argument
@window_option
@direct_option
@wait_option
@click.option("--retry", is_flag=True, help="Ask again for rows that ended without an answer.")
@no_cache_option
@refresh_option
@json_option
@ends_well
def run(
    job: str, window: str, direct: bool, wait: bool, retry: bool, no_cache: bool, refresh: bool, as_json: bool
) -> int:
    """Run a job over a window, or go on with a run that was begun.

    The same job, window and documents again is the same run: it goes on where it stopped, or does nothing
    (exit code 3). A new run is planned from a sample of the documents; lowtide plan reads them all.
    """
    from lowtide.cli import running

    one_of(no_cache, refresh)
    return running.run(
        job,
        window,
        direct=direct,
        wait=wait,
        retry=retry,
        use_cache=not no_cache,
        refresh=refresh,
        as_json=as_json,
    )


@main.command()
@job_argument
@window_option
@root_status_options
@json_option
@ends_well
def status(job: str, window: str, every: bool, root: str | None, last: int, as_json: bool) -> int:
    """Say where the last run over a window stands, or with --all where all runs of the root do."""
    if every or root is not None:
        from lowtide.cli.root_status import show_root

        return show_root(job, root, last=last, as_json=as_json)
    from lowtide.cli import running

    return running.status(job, window, as_json=as_json)


@main.command()
@job_argument
@window_option
@click.option("--run", "run_id", metavar="ID", help="Exactly this run, over whichever window it is.")
@click.pass_context
@ends_well
def cancel(context: click.Context, job: str, window: str, run_id: str | None) -> int:
    """Stop the last run over a window; what was answered is kept and published.

    With --run, end exactly one run of the job, for good. If the job file asks something else than the run does by now,
    its answers cannot be read: what they have cost is counted, and they are given up.
    """
    from lowtide.cli import cancelling

    if run_id is None:
        return cancelling.cancel(job, window)
    if context.get_parameter_source("window") is not click.core.ParameterSource.DEFAULT:
        raise ConfigError("--run and --window: one of them; a run has its window")
    return cancelling.cancel_run(job, run_id)


@main.command()
@job_argument
@window_option
@click.option("--rows", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many rows.")
@click.option(
    "--status", "only", type=click.Choice(["ok", "invalid", "refused", "error", "skipped"]), help="Only such rows."
)
@json_option
@ends_well
def show(job: str, window: str, rows: int, only: str | None, as_json: bool) -> int:
    """Show a few rows of a window's results."""
    from lowtide.cli import reading

    return reading.show(job, window, rows=rows, only=only, as_json=as_json)


@main.command()
@job_argument
@window_option
@click.option("--out", type=click.Path(), help="Where to write the page.  [default: ./JOB-WINDOW.html]")
@ends_well
def report(job: str, window: str, out: str | None) -> int:
    """Write one self-contained HTML page about a window's last run."""
    from lowtide.cli import reading

    return reading.report(job, window, out=out)


@main.command()
@job_argument
@json_option
@ends_well
def doctor(job: str, as_json: bool) -> int:
    """Check what a job needs: its file, source, root, backend and packages."""
    from lowtide.cli import setup

    return setup.doctor(job, as_json=as_json)


@main.command()
@click.option(
    "--port",
    default=8787,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port of 127.0.0.1; 0 takes a free one.",
)
@click.option("--faults", type=click.Path(), help="A YAML file with what is to go wrong.")
@click.option("--speed", default=1.0, show_default=True, help="Emulated seconds in a real second.")
@click.option("--seed", default=0, show_default=True, help="Varies answers, and the order of results.")
@click.option(
    "--tokens",
    type=click.Choice(["bytes", "o200k"]),
    default="bytes",
    show_default=True,
    help="How tokens are counted: a quarter of the bytes, or by OpenAI's tokenizer.",
)
@click.option("--s3", metavar="URL", help="The S3 server for Bedrock.  [default: AWS_ENDPOINT_URL_S3]")
@click.option("--blob", metavar="URL", help="Azure Blob storage.  [default: AZURE_STORAGE_CONNECTION_STRING]")
@ends_well
def emulate(
    port: int, faults: str | None, speed: float, seed: int, tokens: str, s3: str | None, blob: str | None
) -> int:
    """Serve Bedrock, OpenAI and Azure OpenAI batch APIs on this machine, for developing without an account.

    The answers are made up, and the same each time. What a provider would charge is at /_emulator/bill.
    """
    from lowtide.cli import emulating

    return emulating.emulate(port=port, faults=faults, speed=speed, seed=seed, tokens=tokens, s3=s3, blob=blob)


main.add_command(approve)
main.add_command(backfill)
main.add_command(deploy)
main.add_command(forget)
main.add_command(metrics)
main.add_command(prices)
main.add_command(spend)
main.add_command(reconcile)
main.add_command(ledger)
main.add_command(infra)
