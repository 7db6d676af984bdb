"""The flow of the tick: one pass over all open runs of a root, every few minutes."""

from __future__ import annotations

import time
from collections import Counter

import msgspec
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from lowtide import metrics
from lowtide.connectors.assembly import assemble_asked
from lowtide.connectors.stores import open_store
from lowtide.engine.run import Run
from lowtide.flows import happenings
from lowtide.flows.advance import advance_once
from lowtide.flows.failures import say_plainly
from lowtide.protocols import Store
from lowtide.ticking import Taken, Turn, in_words, take_turns


def _flow_run_name() -> str:
    return f"tick of {flow_run.parameters['root']}"


@flow(name="lowtide tick", flow_run_name=_flow_run_name, persist_result=False, validate_parameters=True)
def advance_root(root: str) -> State[dict[str, object]]:
    """Advance each open run of the root once, without waiting; what becomes of one does not matter to the others.

    Returns `{"root": ..., "runs": [...]}`, a record for each open run. One listing, and nothing else, where none is;
    else the root's metrics are written as well.

    Args:
        root: The folder that holds tables, ledgers and runs: `output.root` of the job files.
    """
    say_plainly()
    store, log = open_store(root), get_run_logger()

    def advance(run: Run) -> str:
        return advance_once(run).state

    def failed(turn: Turn, run: Run | None, taken: Taken) -> None:
        log.error("job %s, window %s, run %s: %s", turn.job, turn.window, taken.run_id, taken.error)
        happenings.tell_of_failure(store.uri, taken, run)

    taken = list(take_turns(store, assemble_asked, advance, failed))
    if taken:
        _write_metrics(store)
    said = _said(taken)
    log.info("%s", said)
    return Completed(message=said, data={"root": store.uri, "runs": msgspec.to_builtins(taken)})


def _write_metrics(store: Store) -> None:
    """What the root's runs are doing now, for Prometheus. They are not worth a tick: what hinders that is logged."""
    try:
        store.write(metrics.PATH, metrics.render(metrics.snapshot(store, now=time.time())).encode())
    except Exception as error:
        get_run_logger().warning("metrics were not written: %s", in_words(error))


def _said(taken: list[Taken]) -> str:
    """A line for Prefect's pages: how many runs stand where, and what stands in whose way."""
    if not taken:
        return "no open runs"
    states = Counter(each.state or each.outcome for each in taken)
    told = [f"{each.job}, window {each.window}: {each.error}" for each in taken if each.error]
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return "\n".join([f"{len(taken)} open: {counts}", *told])
