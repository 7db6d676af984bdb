"""What commands have in common: how they end, and the options that several of them take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from lowtide.errors import ConfigError, LowtideError

P = ParamSpec("P")

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells do."""


def ends_well(command: Callable[P, int]) -> Callable[P, None]:
    """Turn a command's result, or what it raised on purpose, into an exit code and one message."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except LowtideError as error:
            click.echo(f"error: {error}", err=True)
            code = error.exit_code
        except BrokenPipeError:
            # The reader has gone (`lowtide show … | head`): not an error of ours.
            sys.stderr.close()
            code = 0
        except KeyboardInterrupt:
            going_on = command.__name__ in ("run", "apply")
            click.echo(
                "\nstopped" + ("; nothing is lost: the same command goes on from here" if going_on else ""), err=True
            )
            code = INTERRUPTED
        sys.exit(code)

    return wrapped


job_argument = click.argument("job", type=click.Path(), default="lowtide.yaml", required=False)
window_option = click.option(
    "--window",
    default="all",
    show_default=True,
    help="Which documents: all, 2026, 2026-11, 2026-W47, 2026-11-20, 2026-11-20T05, START..END, or last: the last "
    "window of the job's schedule that has ended. In the job's time zone.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
cache_options = (
    click.option("--no-cache", is_flag=True, help="Take no answers that earlier runs have bought, and keep none."),
    click.option("--refresh", is_flag=True, help="Ask everything anew, and keep the new answers for later runs."),
)


def one_of(no_cache: bool, refresh: bool) -> None:
    """Raises ConfigError for both: one keeps no answers, the other is there to keep new ones."""
    if no_cache and refresh:
        raise ConfigError("--no-cache and --refresh: one of them; only the second keeps its answers")
