"""Values as a reader sees them: hostile text made harmless to the eye, numbers with separators, money with its unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal

from lowtide.money import exact, rough

# Characters that are not seen and change what is seen: controls, direction marks and overrides (Trojan Source,
# CVE-2021-42574), zero-width spaces, separators, tags, variation-selector-free invisibles, noncharacters, lone
# surrogates. Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji are misspelt without them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufdd0-\ufdef"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
_WIDE = Context(prec=76, rounding=ROUND_HALF_EVEN)
_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60

Money = Mapping[str, Decimal]
"""Amounts by currency."""


def visible(text: str) -> str:
    """The text with each unseen control character spelt out, such as `[U+202E]`; line ends and tabs stay."""
    return _UNSEEN.sub(lambda found: f"[U+{ord(found.group()):04X}]", text.replace("\r\n", "\n"))


def shorten(text: str, characters: int) -> str:
    """At most that many characters, the last of them an ellipsis if anything was cut."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def count(number: int) -> str:
    """`1,234,567`."""
    return f"{number:,}"


def plural(number: int, noun: str, several: str = "") -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def percent(part: int | Decimal, whole: int | Decimal) -> str:
    """`12.5 %`, and never `0 %` or `100 %` for what is not quite that."""
    if not whole:
        return "—"
    share = Decimal(part) * 100 / Decimal(whole)
    if 0 < share < Decimal("0.1"):
        return "< 0.1 %"
    if Decimal("99.9") < share < 100:
        return "> 99.9 %"
    return f"{share.quantize(Decimal('0.1')).normalize():f} %"


def change(now: int | Decimal, before: int | Decimal) -> str:
    """`+12.5 %`, `-3 %`, or `±0 %`; in factors from ten on: `14 times`. "" where there is nothing to compare with."""
    if not before:
        return ""
    ratio = Decimal(now) / Decimal(before)
    if ratio >= 10:
        return f"{ratio.quantize(Decimal(1)):,} times"
    if ratio == 1:
        return "±0 %"
    share = abs(ratio - 1) * 100
    # As many decimals as it takes to be neither nothing nor, where something is gone, all.
    whole = ratio > 1 or share == 100
    shown = next(found for digits in range(1, 40) if (found := round(share, digits)) and (found != 100 or whole))
    return f"{'+' if ratio > 1 else '-'}{shown.normalize():f} %"


def divided(amount: Decimal, parts: int) -> Decimal:
    """An equal part, in steps of 1e-12 like all money."""
    return _WIDE.quantize(_WIDE.divide(amount, Decimal(parts)), Decimal("0.000000000001"))


def money(amount: Decimal, currency: str = "USD") -> str:
    """An amount to read, not to reckon with, and its currency."""
    return f"{rough(amount)} {currency}"


def amounts(values: Money, *, precise: bool = False) -> str:
    """Money in each of its currencies, the largest first; `0.00 USD` if there is none."""
    ordered = sorted(values.items(), key=lambda item: -item[1]) or [("USD", Decimal(0))]
    return ", ".join(f"{exact(amount)} {name}" if precise else money(amount, name) for name, amount in ordered)


def duration(seconds: float) -> str:
    """The two largest units: `2 d 4 h`, `3 h 12 min`, `45 s`, `0.4 s`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + " s"
    rest = round(seconds)
    parts: list[str] = []
    for name, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE), ("s", 1)):
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {name}")
        elif parts:
            break
    return " ".join(parts[:2])


def span(start: datetime | None, end: datetime | None) -> timedelta | None:
    """From start to end, or None if either is not known; never negative, since clocks of two machines differ."""
    return max(end - start, timedelta(0)) if start and end else None


def moment(when: datetime) -> str:
    """`16 Nov 2026, 09:12:03 UTC`."""
    return f"{aware(when).day} {aware(when):%b %Y, %H:%M:%S} UTC"


def minute(when: datetime) -> str:
    """`16 Nov 2026, 09:12 UTC`."""
    return f"{aware(when).day} {aware(when):%b %Y, %H:%M} UTC"


def period(start: datetime, end: datetime) -> str:
    """A half-open range, in days if it begins and ends at midnight: `16 Nov 2026 up to 23 Nov 2026`."""
    both = [aware(start), aware(end)]
    if all((when.hour, when.minute, when.second) == (0, 0, 0) for when in both):
        return " up to ".join(f"{when.day} {when:%b %Y}" for when in both)
    return " up to ".join(map(minute, both))


def instant(when: datetime) -> str:
    """The same in ISO 8601, for machines."""
    return aware(when).isoformat(timespec="seconds").replace("+00:00", "Z")


def aware(when: datetime) -> datetime:
    """The same time in UTC; a time without a zone is taken to be in UTC already."""
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
