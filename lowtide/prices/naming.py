"""Where the price of a plan is from, as its reader should see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowtide.plan import RunPlan


def price_named(plan: RunPlan) -> str:
    """The book and its entry, the job file with its reason, or what a machine costs; "" where nothing is charged.

    The id of a price out of a book begins with that book's own id, so the book is named once.
    """
    if plan.backend == "local":
        return ""
    if plan.price and plan.price.by_time:
        return plan.price.source
    book, _, entry = plan.price_id.partition(": ")
    if entry and book in plan.price_book.split("+"):
        return f"book {plan.price_id}"
    return f"job file: {plan.price.source}" if plan.price and plan.price.source else plan.price_id
