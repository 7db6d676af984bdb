"""`forget`: take a person's document out of a root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lowtide.cli.options import ends_well
from lowtide.cli.roots import open_root

if TYPE_CHECKING:
    from lowtide.forgetting import Forgetting, Touched
    from lowtide.protocols import Store

DONE, NOTHING, DECLINED = 0, 3, 3
_OF_A_ROOT = (".lowtide/", "runs/", "tables/")
_OLD = 24 * 3600.0
"""Seconds after which a hidden file is certainly nobody's any more."""


@click.command()
@click.argument("job", type=click.Path(), required=False)
@click.option("--root", metavar="ADDRESS", help="The root itself, instead of a job that writes to it.")
@click.option(
    "--document", required=True, metavar="URI", help="Its document_uri, or its document_id, as results show them."
)
@click.option(
    "--key",
    metavar="KEY",
    help="Only the row with this key, of the file of rows at that URI; not with a document_id, which names one row.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@ends_well
def forget(job: str | None, root: str | None, document: str, key: str | None, dry_run: bool, yes: bool) -> int:
    """Remove a person's document from a root: requests, answers, results, and what the cache knows of it.

    Goes through all runs of all jobs of the root. What the runs have cost stays. The document at its source, and what
    lies at a provider, are not touched. Exit code 3: nothing was found, or a run that holds it is not finished.
    """
    from lowtide.budget.approval import this_user
    from lowtide.forgetting import Forgetting, Target

    asked = Target.of(document, key)
    store, _ = open_root(job, root)
    if root is not None:
        _check_root(store)
    forgetting = Forgetting(store, asked, this_user())
    target = forgetting.located()
    begun = not dry_run and forgetting.was_begun()
    found = forgetting.survey()
    if not found and not begun:
        _say_nothing(store, document)
        return NOTHING
    _show(found, "to be removed" if dry_run or not yes else "found")
    if dry_run:
        return DONE
    if not yes and not _confirmed():
        click.echo("nothing was removed", err=True)
        return DECLINED
    _show(_perform(forgetting), "removed")
    _sweep(store)
    _say_what_is_left(store, target.uri)
    return DONE


def _check_root(store: Store) -> None:
    """Raises ConfigError where no root is: who mistypes it must not take the document for forgotten."""
    from lowtide.errors import ConfigError

    if all(next(store.list(folder), None) is None for folder in _OF_A_ROOT):
        raise ConfigError(
            f"--root: {store.uri} is no root of Lowtide: found none of {', '.join(_OF_A_ROOT)} in it; expected the "
            "address that job files name as output.root"
        )


def _confirmed() -> bool:
    try:
        return click.confirm("Remove all of it? It cannot be brought back", err=True)
    except click.Abort:
        click.echo(err=True)
        return False


def _perform(forgetting: Forgetting) -> Touched:
    removed = forgetting.perform()
    click.echo("done: nothing of it is left in this root; the record of it is under forgotten/", err=True)
    return removed


def _show(touched: Touched, what: str) -> None:
    for kind, counted in touched.counts().items():
        files, entries = counted["files"], counted["entries"]
        click.echo(f"{kind:<10} {entries:>9,} {what}, in {files:,} file{'' if files == 1 else 's'}")


def _say_nothing(store: Store, document: str) -> None:
    click.echo(
        f"nothing of {document!r} is in {store.uri}: it was never there, or is forgotten already; write it as the "
        "column document_uri of the results does",
        err=True,
    )


def _sweep(store: Store) -> None:
    """On disk, hidden files of processes that were killed may hold anything: delete those that are nobody's."""
    import time

    from lowtide.connectors.stores.addresses import local_path

    if not store.uri.startswith("file://"):
        return
    left = 0
    for path in local_path(store.uri).rglob(".lowtide-*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > _OLD:
                path.unlink()
            else:
                left += 1
        except FileNotFoundError:
            continue
    if left:
        click.echo(
            f"warning: {left:,} hidden files (.lowtide-*.tmp) of processes that run, or were killed, are less than a "
            "day old: they may hold documents; once no process runs, delete them",
            err=True,
        )


def _say_what_is_left(store: Store, uri: str) -> None:
    if uri and _is_at_source(uri):
        click.echo(
            f"warning: {uri} is still at its source: a later run whose window holds it reads it again; delete it there",
            err=True,
        )
    if not store.uri.startswith("file://"):
        click.echo(
            "note: if the bucket or container keeps versions or deleted objects, it still has the old ones: "
            "docs/operations/forget.md says how to remove them",
            err=True,
        )


def _is_at_source(uri: str) -> bool:
    """Whether the file is where it was read from, as far as that can be seen from here."""
    from urllib.parse import unquote

    from lowtide.connectors.stores import open_store
    from lowtide.errors import LowtideError

    folder, _, name = uri.rpartition("/")
    try:
        source = open_store(unquote(folder) if not folder.startswith("file://") else folder)
        return any(source.info(one) is not None for one in dict.fromkeys([name, unquote(name)]))
    except LowtideError:
        click.echo(f"note: whether {uri} is still at its source cannot be seen from here", err=True)
        return False
