"""Exact money: whole steps of 1e-12 USD, shared out to the last step, and products that are never rounded.

Python's decimals round at 28 digits unless told otherwise; the tables hold 38.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation, Overflow

import numpy as np
import numpy.typing as npt

SCALE = 12
"""Decimal places of an amount: the scale of decimal128(38,12)."""

_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
_WIDE = Context(prec=76, rounding=ROUND_HALF_EVEN)
_WORD = (1 << 64) - 1
_FLOAT_SHARE = 1 << 50
"""Below this a share that is reckoned in floats is off by less than one step."""
_SUMMED_WEIGHTS = 1 << 61
"""Below this a remainder, and twice it with its sign, fits into 64 bits."""


def usd(amount: Decimal) -> str:
    """An amount to read, without its unit: `1,234.5000`, and as many decimals as two digits of a small one need."""
    whole = not amount or amount == amount.quantize(Decimal("0.0001"))
    decimals = 4 if whole else min(max(4, 1 - amount.adjusted()), SCALE)
    return f"{amount:,.{decimals}f}"


def exact(amount: Decimal) -> str:
    """Every digit that is not a trailing zero, with at least two decimals: `1,234.50`, `0.000012`."""
    text = f"{amount:,f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def rough(amount: Decimal) -> str:
    """An amount to read, not to reckon with: cents, or three significant digits below one unit."""
    size = abs(amount)
    small = 0 < size < 1
    digits = Decimal(1).scaleb(min(-2, size.adjusted() - 2)) if small else Decimal("0.01")
    return exact(_WIDE.quantize(amount, digits))


def product(price: Decimal, quantity: int) -> Decimal:
    """So many units at this price, exactly. Raises decimal.Inexact rather than round."""
    return _EXACT.multiply(price, Decimal(quantity))


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum; 0 for none."""
    found = Decimal(0)
    for amount in amounts:
        found = _EXACT.add(found, amount)
    return found


def steps(amount: Decimal) -> int:
    """An amount in whole steps of 1e-12. Raises decimal.Inexact for one that is finer."""
    return int(_EXACT.quantize(amount, Decimal(1).scaleb(-SCALE)).scaleb(SCALE, _EXACT))


def amount_of(count: int) -> Decimal:
    """So many steps of 1e-12 as an amount with twelve decimals."""
    return Decimal(count).scaleb(-SCALE, _EXACT)


def allocate(total: int, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Share out `total` steps in proportion to the weights, so that the shares sum to it exactly.

    Each share is its exact part rounded down or up; what is left over goes to the largest remainders, and among equal
    ones to the first. Where all weights are 0 the shares are equal. A negative total is shared out like a positive one.
    Raises ValueError for a weight below 0 and for a total with nobody to take it, OverflowError for a share beyond 64
    bits.
    """
    if not len(weights):
        if total:
            raise ValueError(f"{total} cannot be shared out: there are no weights")
        return np.zeros(0, dtype=np.int64)
    if int(weights.min()) < 0:
        raise ValueError(f"weight {int(weights.min())} is below 0")
    largest = int(weights.max())
    if not largest:
        weights, largest = np.ones_like(weights), 1
    # A sum of int64 wraps without a word.
    whole = int(weights.sum()) if largest * len(weights) < 1 << 63 else sum(weights.tolist())
    size = abs(total)
    if size * largest // whole < _FLOAT_SHARE and whole < _SUMMED_WEIGHTS:
        shares = _share_out(size, weights, whole)
    else:
        shares = np.array(_share_out_exactly(size, weights.tolist(), whole), dtype=np.int64)
    return -shares if total < 0 else shares


def _share_out(size: int, weights: npt.NDArray[np.int64], whole: int) -> npt.NDArray[np.int64]:
    """In floats first, which are off by one at most; the remainders, reckoned modulo 2**64, tell where."""
    shares = np.floor(weights.astype(np.float64) * (size / whole)).astype(np.int64)
    exact = weights.astype(np.uint64) * np.uint64(size & _WORD)
    remainders = (exact - shares.astype(np.uint64) * np.uint64(whole)).view(np.int64)
    over = (remainders >= whole).astype(np.int64) - (remainders < 0)
    shares += over
    remainders -= over * whole
    # The sum of the shares may wrap as well; what is left is less than one step for each.
    left = (size - int(shares.sum())) & _WORD
    shares[np.argsort(-remainders, kind="stable")[:left]] += 1
    return shares


def _share_out_exactly(size: int, weights: list[int], whole: int) -> list[int]:
    shares, remainders = map(list, zip(*(divmod(size * weight, whole) for weight in weights), strict=True))
    left = size - sum(shares)
    for place in sorted(range(len(shares)), key=lambda place: -remainders[place])[:left]:
        shares[place] += 1
    return shares
