"""What tokens cost: prices that a run is reckoned with, and the book that they are looked up in."""

from __future__ import annotations

from lowtide.prices.book import BookPrice, PriceBook
from lowtide.prices.lookup import backend_price, on_demand_price
from lowtide.prices.price import LOCAL, PICO, Price

__all__ = ["LOCAL", "PICO", "BookPrice", "Price", "PriceBook", "backend_price", "on_demand_price"]
