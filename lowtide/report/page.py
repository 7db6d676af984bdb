"""The report of one run: three tables in, one self-contained HTML file out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import BinaryIO

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from lowtide.report import costs, figures, gauges, heading, shards
from lowtide.report.ledger import Ledger, read_ledger
from lowtide.report.records import ReportMeta
from lowtide.report.results import Results, Sample, read_results
from lowtide.report.runs import read_run
from lowtide.report.tables import Tables, saving
from lowtide.report.text import aware, count, instant, moment, money, shorten, visible
from lowtide.report.timeline import timeline
from lowtide.report.views import Cell, Lanes, words

_LABELLED_OPERATIONS = 12
_URI, _FIELD = 90, 80


@dataclass(frozen=True, slots=True)
class _Card:
    """A sample row as it is shown. `facts` are its small print."""

    uri: Cell
    operation: str
    status: str
    role: str
    reason: str
    label: Cell | None
    confidence: str
    output: str
    fields: tuple[tuple[str, Cell], ...]
    facts: tuple[str, ...]


def write_report(
    results: BinaryIO | None,
    ledger: BinaryIO | None,
    runs: BinaryIO | None,
    out: BinaryIO,
    *,
    meta: ReportMeta,
    samples: int = 20,
    characters: int = 600,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the report of one run as one HTML file in UTF-8, that loads nothing and runs no script.

    `results`, `ledger` and `runs` are seekable streams over the Parquet tables of one job and window; None where there
    is no such table yet. They are read in batches and stay open. Memory depends on `samples` and `characters` (how many
    rows are shown, and how much of each text), not on the number of rows. `progress` gets rows read and rows in all,
    of the results table. The same input gives the same bytes.

    Everything that stands in the tables is taken to be hostile: it is escaped, cut, stripped of direction overrides
    and other unseen characters, and never becomes a link.

    Raises StoreError if a stream holds no Parquet table; nothing has then been written to `out`.
    """
    tables = Tables(
        results=read_results(results, samples, characters, progress) if results else None,
        ledger=read_ledger(ledger, priced=meta.priced) if ledger else None,
        run=read_run(runs, meta.run_id) if runs else None,
    )
    gained = saving(tables, priced=meta.priced)
    page = template("page.html.j2").render(
        meta=meta,
        style=style(),
        state=heading.state(meta, tables),
        facts=heading.facts(meta, tables),
        tiles=heading.tiles(tables, gained, priced=meta.priced),
        disagreements=heading.disagreements(meta, tables),
        generated=(instant(meta.generated_at), moment(meta.generated_at)),
        timeline=timeline(meta.shards, aware(meta.generated_at)),
        tables=tables,
        planned=gauges.plan_gauges(meta, tables, priced=meta.priced),
        backends=costs.backend_bars(meta, tables, gained, priced=meta.priced),
        saved=costs.saving_strip(gained) if gained else None,
        dearer=costs.saving_in_words(gained) if gained and gained.saved < 0 else "",
        cache=costs.cache_strip(tables),
        capped=costs.cap_in_words(tables),
        **_of_results(tables.results, characters, priced=meta.priced),
        **_of_ledger(tables.ledger),
    )
    out.write(page.lstrip().encode("utf-8"))


def style() -> Markup:
    """The style sheet of every page that we write."""
    return Markup(_file("style.css"))  # noqa: S704 - our own file


def template(name: str) -> Template:
    """A template of this package: it escapes, and makes visible, whatever it prints."""

    def seen(value: object) -> object:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    # Whatever the template prints passes through `finalize` before it is escaped, so no value can be forgotten.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=seen,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_file),
    )
    environment.tests |= {"lanes": lambda figure: isinstance(figure, Lanes)}
    return environment.get_template(name)


def _file(name: str) -> str:
    return resources.files("lowtide.report").joinpath(name).read_text("utf-8")


def _of_results(results: Results | None, characters: int, *, priced: bool) -> dict[str, object]:
    if results is None or not results.rows:
        return {"statuses": None, "reasons": None, "labels": (), "cards": (), "labels_left": 0}
    labelled = sorted((one for one in results.operations.values() if one.labelled), key=lambda one: one.name)
    return {
        "statuses": figures.status_strip(results),
        "reasons": figures.reasons(results),
        "labels": tuple(figures.label_bars(one) for one in labelled[:_LABELLED_OPERATIONS]),
        "labels_left": max(0, len(labelled) - _LABELLED_OPERATIONS),
        "cards": tuple(_card(sample, characters, priced=priced) for sample in results.samples),
    }


def _of_ledger(ledger: Ledger | None) -> dict[str, object]:
    if ledger is None or not ledger.entries:
        empty = dict.fromkeys(("tokens", "wasted", "uses", "kinds", "models"))
        return {"waste": "", "by_shard": (), **empty}
    return {
        "tokens": figures.token_strip(ledger),
        "waste": figures.waste_sentence(ledger),
        "wasted": costs.waste_bars(ledger),
        "by_shard": tuple(filter(None, (shards.cost_columns(ledger), shards.token_columns(ledger)))),
        "uses": figures.use_table(ledger),
        "kinds": figures.kinds_table(ledger),
        "models": figures.models_table(ledger),
    }


def _card(sample: Sample, characters: int, *, priced: bool) -> _Card:
    used = [
        f"{count(tokens)} {name}"
        for name, tokens in (("in", sample.input_tokens), ("out", sample.output_tokens))
        if tokens is not None
    ]
    told = (
        " · ".join(filter(None, (sample.backend, sample.model))),
        f"tokens: {', '.join(used)}" if used else "",
        "bought by an earlier run" if sample.cached else "",
        money(sample.cost) if priced and sample.cost is not None else "",
    )
    return _Card(
        uri=words(sample.document_uri, _URI),
        operation=shorten(sample.operation, _FIELD),
        status=shorten(sample.status, _FIELD) or "no status",
        role=figures.role(sample.status),
        reason=shorten(sample.status_reason, 2 * _FIELD),
        label=words(sample.label, _FIELD) if sample.label else None,
        confidence="" if sample.confidence is None else f"{sample.confidence:.2f}",
        output=shorten(sample.output, characters),
        fields=tuple((shorten(name, _FIELD), words(value, _FIELD)) for name, value in sample.fields),
        facts=tuple(shorten(fact, 120) for fact in told if fact),
    )
