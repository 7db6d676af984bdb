"""What a backfill shows on Prefect's pages before anything is bought: its plan, and the question."""

from __future__ import annotations

from lowtide import money
from lowtide.backfill import WindowPlan
from lowtide.flows.filling import Planned
from lowtide.flows.pages import write_text

_MOST_LINES = 200


def write_plan(planned: Planned) -> None:
    """The plan as an artifact of the flow run."""
    found = planned.found
    write_text(f"backfill {found.wanted.job} {found.id}", plan_text(planned), "The plan over all windows")


def question(planned: Planned) -> str:
    """What is asked, as Markdown: once, for all windows."""
    usd = money.rough(planned.found.cost_usd)
    return (
        f"{plan_text(planned)}\n\nSwitch *approve* on and resume to spend about **{usd} USD** in all. "
        "Without an answer nothing is bought."
    )


def plan_text(planned: Planned) -> str:
    """The plan as Markdown: totals, and a line for each window."""
    found = planned.found
    low, high = money.rough(found.cost_low_usd), money.rough(found.cost_high_usd)
    lines = [
        f"## Job {found.wanted.job}, {len(found.to_do):,} windows to run, "
        f"{len(found.windows) - len(found.to_do):,} passed over",
        "",
        f"- expected: about **{money.rough(found.cost_usd)} USD**, with 90 % from {low} to {high} USD",
    ]
    if planned.gone:
        lines.append(f"- spent by this backfill before: {money.exact(planned.gone)} USD")
    if found.max_usd is not None:
        lines.append(f"- cap over all windows: {money.exact(found.max_usd)} USD")
    lines += ["", "| window | documents | to ask | cached | cost, USD | why |", "|---|---:|---:|---:|---:|---|"]
    lines += [_line(window) for window in found.windows[:_MOST_LINES]]
    if len(found.windows) > _MOST_LINES:
        lines.append(f"\n... and {len(found.windows) - _MOST_LINES:,} more")
    return "\n".join(lines)


def _line(window: WindowPlan) -> str:
    if not window.needs:
        return f"| {window.window} | | | | | {window.why} |"
    about = "" if window.exact else "~"
    return (
        f"| **{window.window}** | {about}{window.documents:,} | {window.requests:,} | "
        f"{window.cached + window.twins:,} | {money.usd(window.cost_usd)} | {window.why} |"
    )
