"""Cost and tokens by shard; hundreds of shards are drawn in groups of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from lowtide.money import exact
from lowtide.report.charts import Scale, Series, scale, stacked
from lowtide.report.ledger import TOKEN_TYPES, Ledger, ShardUse
from lowtide.report.text import amounts, count, plural
from lowtide.report.views import Cell, Columns, Segment, Table, number, paid, table

SHARD_COLUMNS = 40
_NOTHING = Decimal(0)
_NAMES = {"input": "input", "cached_input": "cached input", "cache_write": "cache write"}


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    shards: int
    use: ShardUse


def cost_columns(ledger: Ledger) -> Columns | None:
    """What each shard cost, waste apart; None if no shard cost anything. One currency: the one most was paid in."""
    groups = _groups(ledger)
    currency = max(ledger.cost, key=lambda name: ledger.cost[name], default="USD")
    spent = [
        (group.use.cost.get(currency, _NOTHING), group.use.wasted_cost.get(currency, _NOTHING)) for group in groups
    ]
    axis = scale(float(max((useful + wasted for useful, wasted in spent), default=_NOTHING)))
    if not any(useful + wasted > 0 for useful, wasted in spent):
        return None
    names = [_titled(group) for group in groups]
    series = [
        Series("cost", "answers kept", [float(useful) for useful, _ in spent], _titles(names, spent, 0, currency)),
        Series("waste", "waste", [float(wasted) for _, wasted in spent], _titles(names, spent, 1, currency)),
    ]
    dearest = max(range(len(groups)), key=lambda index: sum(spent[index]))
    most = amounts({currency: sum(spent[dearest], _NOTHING)})
    return Columns(
        title=f"Cost, {currency}",
        summary=_scope(groups) + (f" The dearest is {names[dearest]} at {most}." if len(groups) > 1 else ""),
        marks=stacked(series, axis.top, horizontal=False, gap=_gap(len(groups)), label=f"Cost by shard in {currency}"),
        ticks=tuple(money_ticks(axis)),
        positions=_positions(groups),
        legend=_legend(series),
        table=_cost_table(ledger, groups),
    )


def token_columns(ledger: Ledger) -> Columns | None:
    """What each shard had processed, by token type, waste apart; None if no shard used a token."""
    groups = _groups(ledger)
    axis = scale(float(max((group.use.tokens for group in groups), default=0)), whole=True)
    if not any(group.use.tokens for group in groups):
        return None
    names = [_titled(group) for group in groups]
    parts = {kind: [group.use.useful.get(kind, 0) for group in groups] for kind in (*TOKEN_TYPES, "other")}
    parts["waste"] = [group.use.wasted for group in groups]
    series = [
        Series(
            kind,
            _NAMES.get(kind, kind),
            tokens,
            [
                f"{name}: {plural(size, _NAMES.get(kind, kind) + ' token')}"
                for name, size in zip(names, tokens, strict=True)
            ],
        )
        for kind, tokens in parts.items()
        if any(tokens) or kind == "waste"
    ]
    most = max(groups, key=lambda group: group.use.tokens)
    used = plural(most.use.tokens, "token")
    return Columns(
        title="Tokens",
        summary=_scope(groups) + (f" The largest is {_titled(most)} with {used}." if len(groups) > 1 else ""),
        marks=stacked(series, axis.top, horizontal=False, gap=_gap(len(groups)), label="Tokens by shard"),
        ticks=tuple(_count_ticks(axis)),
        positions=_positions(groups),
        legend=_legend(series),
        table=_token_table(ledger, groups),
    )


def _groups(ledger: Ledger) -> list[_Group]:
    numbered = sorted((number, use) for number, use in ledger.shards.items() if number is not None)
    wanted = min(len(numbered), SHARD_COLUMNS)
    edges = [len(numbered) * group // wanted for group in range(wanted + 1)] if wanted else []
    groups: list[_Group] = []
    for start, end in pairwise(edges):
        part = numbered[start:end]
        use = part[0][1]
        for _, other in part[1:]:
            use = use.merged(other)
        first, last = part[0][0], part[-1][0]
        groups.append(_Group(count(first) if first == last else f"{count(first)} to {count(last)}", len(part), use))
    return groups


def _scope(groups: Sequence[_Group]) -> str:
    shards = sum(group.shards for group in groups)
    if shards == len(groups):
        return f"{plural(shards, 'shard')}."
    largest = max(group.shards for group in groups)
    return f"{plural(shards, 'shard')}, drawn in {count(len(groups))} groups of up to {largest}."


def _titled(group: _Group) -> str:
    return f"{'shard' if group.shards == 1 else 'shards'} {group.name}"


def _titles(names: Sequence[str], spent: Sequence[tuple[Decimal, Decimal]], part: int, currency: str) -> list[str]:
    said = ("", "waste ")[part]
    return [f"{name}: {said}{exact(pair[part])} {currency}" for name, pair in zip(names, spent, strict=True)]


def _positions(groups: Sequence[_Group]) -> tuple[str, ...]:
    if len(groups) <= 1:
        return tuple(_titled(group) for group in groups)
    if len(groups) <= 12:
        return tuple(group.name for group in groups)
    return (_titled(groups[0]), _titled(groups[-1]))


def _legend(series: Sequence[Series]) -> tuple[Segment, ...]:
    return tuple(Segment(one.role, one.name, Cell("")) for one in series if any(one.values))


def money_ticks(axis: Scale) -> list[str]:
    """The ticks of an axis of money, with as many decimals as its steps need."""
    step = Decimal(f"{axis.top / axis.divisions:.3g}")
    # Steps are round, so the digits that the step needs are all that any tick needs.
    return [exact(step * tick) for tick in range(axis.divisions + 1)]


def _count_ticks(axis: Scale) -> list[str]:
    units = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e4, " k"))
    size, unit = next(((size, unit) for size, unit in units if axis.top >= size), (1.0, ""))
    size = 1e3 if unit == " k" else size
    return [f"{tick / size:,g}{unit if tick else ''}" for tick in axis.ticks]


def _gap(columns: int) -> float:
    """One column alone should look like a column, not like a wall."""
    return {1: 0.88, 2: 0.76, 3: 0.64, 4: 0.5}.get(columns, 0.25)


def _with_unshared(ledger: Ledger, groups: Sequence[_Group]) -> list[_Group]:
    unshared = [_Group("belongs to no shard", 0, ledger.shards[None])] if None in ledger.shards else []
    return [*groups, *unshared]


def _cost_table(ledger: Ledger, groups: Sequence[_Group]) -> Table:
    body = []
    for group in _with_unshared(ledger, groups):
        whole = group.use.merged(ShardUse(cost=group.use.wasted_cost))
        sums = (group.use.cost, group.use.wasted_cost, whole.cost)
        body.append([Cell(group.name), *(paid(cost, group.use.unknown) for cost in sums)])
    return table(["Shard", "Answers kept", "Waste", "All"], body)


def _token_table(ledger: Ledger, groups: Sequence[_Group]) -> Table:
    everything = _with_unshared(ledger, groups)
    kinds = [kind for kind in (*TOKEN_TYPES, "other") if any(group.use.useful.get(kind) for group in everything)]
    body = []
    for group in everything:
        parts = [number(group.use.useful.get(kind, 0)) for kind in kinds]
        body.append([Cell(group.name), *parts, number(group.use.wasted), number(group.use.tokens)])
    return table(["Shard", *(_NAMES.get(kind, kind).capitalize() for kind in kinds), "Waste", "All"], body)
