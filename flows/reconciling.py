"""The flow that holds the ledger against a provider's bill, once a month."""

from __future__ import annotations

import logging
import shutil
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from lowtide.billing.billed import write_billed
from lowtide.billing.reconcile import Reconciliation
from lowtide.billing.reconcile import reconcile as compare
from lowtide.connectors.bills import open_bill, read_names
from lowtide.connectors.stores import matching, open_store, split_glob
from lowtide.errors import ConfigError
from lowtide.flows.failures import say_plainly
from lowtide.flows.run import scheduled

_LOG = logging.getLogger("lowtide.flows")

DRIFTED = "lowtide.bill.drifted"


def _flow_run_name() -> str:
    return f"bill of {flow_run.parameters['root']}"


@flow(name="lowtide reconcile", flow_run_name=_flow_run_name, persist_result=False, validate_parameters=True)
def reconcile_root(
    root: str,
    bill: str,
    names: str | None = None,
    tolerance: Annotated[Decimal, Field(ge=0)] = Decimal(0),
) -> State[dict[str, object]]:
    """Compare a bill with the root's ledger, and write what was billed into it; the same bill again writes nothing.

    Where the two differ, the event `lowtide.bill.drifted` is sent.

    Args:
        root: The folder that holds tables, ledgers and runs: `output.root` of the job files.
        bill: Where the provider's export is: a path, file://, s3:// or abfs:// address, with * and ** for several
            files. {year} and {month} are those of the month before.
        names: A YAML file that says which models and units the bill's words mean.
        tolerance: Lines that differ by less, in USD, pass.
    """
    say_plainly()
    store, address = open_store(root), of_month(bill, scheduled())
    known = read_names(Path(names)) if names else None
    with tempfile.TemporaryDirectory(prefix="lowtide-bill-") as folder:
        files = list(_fetch(address, Path(folder)))
        found = compare(store, [open_bill(path, known) for path in files])
        written = write_billed(store, found, datetime.now(UTC))
    clean = found.is_clean(tolerance)
    data: dict[str, object] = {
        "root": store.uri,
        "bill": address,
        "files": len(files),
        "lines_read": found.read,
        "billed_usd": f"{found.billed_usd:f}",
        "drift_tokens": found.tokens,
        "drift_usd": f"{found.usd:f}",
        "not_understood": len(found.unknown),
        "clean": clean,
        "entries_written": written.billed + written.corrections,
    }
    said = _said(found, clean=clean)
    get_run_logger().info("%s", said)
    _show(store.uri, data, said, clean=clean)
    return Completed(message=said, data=data)


def of_month(address: str, moment: datetime) -> str:
    """The address with `{year}` and `{month}` filled in: those of the calendar month (UTC) before the moment's."""
    first: date = moment.astimezone(UTC).date().replace(day=1)
    before = first - timedelta(days=1)
    return address.replace("{year}", f"{before.year:04d}").replace("{month}", f"{before.month:02d}")


def _fetch(address: str, folder: Path) -> list[Path]:
    """The bill's files, copied into a folder of this machine. Raises ConfigError if there is none."""
    try:
        base, pattern = split_glob(address)
    except ConfigError as error:
        raise ConfigError(f"bill: {error}") from error
    store = open_store(base)
    files: list[Path] = []
    for number, info in enumerate(matching(store, pattern)):
        path = folder / f"{number:04d}-{Path(info.path).name}"
        with store.open(info.path) as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        files.append(path)
    if not files:
        raise ConfigError(f"bill: nothing is at {address!r}; check the address, and whether the export has run")
    return files


def _said(found: Reconciliation, *, clean: bool) -> str:
    drift = "no drift" if clean else f"drift of {found.tokens:+,} tokens, {found.usd:+f} USD"
    unknown = f", {len(found.unknown):,} lines not understood" if found.unknown else ""
    return f"{found.read:,} lines of {found.span.first} to {found.span.last}: {drift}{unknown}"


def _show(root: str, data: dict[str, object], said: str, *, clean: bool) -> None:
    """The page and, where the two differ, the event. Prefect is not the truth: what it does not take is passed over."""
    try:
        lines = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in data.items())
        create_markdown_artifact(f"# Bill and ledger\n\n{said}\n\n{lines}\n", key="lowtide-bill", description=said)
        if not clean:
            resource = {"prefect.resource.id": f"lowtide.root.{root}", "prefect.resource.name": root}
            emit_event(event=DRIFTED, resource=resource, payload=data)
    except Exception as error:
        _LOG.warning("a Prefect page was not written: %s", type(error).__name__)
