"""Readers of price lists: what they state goes into the price book, and what they do not is left out."""

from __future__ import annotations

from lowtide.connectors.prices.aws import read_aws
from lowtide.connectors.prices.azure import read_azure
from lowtide.connectors.prices.imported import Imported, Skipped
from lowtide.connectors.prices.litellm import read_litellm

__all__ = ["Imported", "Skipped", "read_aws", "read_azure", "read_litellm"]
