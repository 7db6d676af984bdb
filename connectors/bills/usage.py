"""What the name of a usage says: region, model, kind of token, and how it was served.

AWS documents the kinds of token by pattern (`*-input-tokens`, `*-cache-read-input-token-count`: Bedrock user guide,
"Understanding your Amazon Bedrock Cost and Usage Report data"); its price list files show the rest: `-batch`, `-flex`
and `-priority` at the end, `USE1-MP:USE1_InputTokenCount-Units` for models that are sold through the Marketplace. Azure
documents no meter names; those here are its retail price API's: `gpt-4o-mini-0718-Batch-Inp-glbl Tokens`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lowtide.billing.bill import BATCH, ON_DEMAND


@dataclass(frozen=True, slots=True)
class Usage:
    """`name` is what the model is called. `token_type` is "" where no kind of token is named; `region` as well."""

    name: str
    token_type: str
    mode: str
    region: str = ""


# As usage types begin with them. Documented for a few regions; all are in AWS's price list files.
REGIONS = {
    "USE1": "us-east-1",
    "USE2": "us-east-2",
    "USW1": "us-west-1",
    "USW2": "us-west-2",
    "CAN1": "ca-central-1",
    "SAE1": "sa-east-1",
    "EU": "eu-west-1",
    "EUW1": "eu-west-1",
    "EUW2": "eu-west-2",
    "EUW3": "eu-west-3",
    "EUC1": "eu-central-1",
    "EUC2": "eu-central-2",
    "EUN1": "eu-north-1",
    "EUS1": "eu-south-1",
    "EUS2": "eu-south-2",
    "APN1": "ap-northeast-1",
    "APN2": "ap-northeast-2",
    "APN3": "ap-northeast-3",
    "APS1": "ap-southeast-1",
    "APS2": "ap-southeast-2",
    "APS3": "ap-south-1",
    "APS4": "ap-southeast-3",
    "APS5": "ap-south-2",
    "APS6": "ap-southeast-4",
    "APE1": "ap-east-1",
    "MES1": "me-south-1",
    "MEC1": "me-central-1",
    "AFS1": "af-south-1",
    "ILC1": "il-central-1",
    "UGW1": "us-gov-west-1",
    "UGE1": "us-gov-east-1",
}

_REGION = re.compile(r"^([A-Z]{2,3}\d?)-")
_MARKET = re.compile(r"^MP:(?:[A-Z]{2,3}\d?_)?")
_AWS_TOKENS = (
    ("cached_input", re.compile(r"cache[-_]?read\w*?[-_]?(?:input[-_]?)?token", re.IGNORECASE)),
    ("cache_write", re.compile(r"cache[-_]?write\w*?[-_]?(?:input[-_]?)?token", re.IGNORECASE)),
    ("input", re.compile(r"input[-_]?token", re.IGNORECASE)),
    ("output", re.compile(r"(?:output|response)[-_]?token", re.IGNORECASE)),
)
_TIERS = re.compile(r"flex|priority|reserved|latency|custom-model", re.IGNORECASE)
_AWS_FILLERS = re.compile(r"(?:mantle|million|batch)$", re.IGNORECASE)
_EDITION = re.compile(r"\s*\(amazon bedrock edition\)\s*$", re.IGNORECASE)

_JOINS = re.compile(r"(?<=[a-z])(?=[A-Z])|[\s_-]+")
_CACHED = {"cached", "cchd", "cd", "cache"}
_INPUT = {"inp", "input", "inpt"}
_OUTPUT = {"outp", "output", "outpt", "out", "opt"}
_WRITE = {"wr", "write"}
_SCOPES = {
    "glbl",
    "global",
    "gl",
    "regnl",
    "regional",
    "regn",
    "rgnl",
    "data",
    "zone",
    "datazone",
    "dzone",
    "dzn",
    "dz",
}
_NO_NAMES = {"tokens", "token", "1m", "1k", "std", "batch"} | _CACHED | _INPUT | _OUTPUT | _WRITE | _SCOPES


def of_aws(usage_type: str, product: str) -> Usage:
    """The usage behind a usage type. `product` names the model where the usage type does not."""
    found = _REGION.match(usage_type)
    region = REGIONS.get(found[1], "") if found else ""
    rest = usage_type[found.end() :] if found else usage_type
    market = _MARKET.match(rest)
    rest = rest[market.end() :] if market else rest
    for token_type, pattern in _AWS_TOKENS:
        if part := pattern.search(rest):
            name = rest[: part.start()].strip("-_")
            while filler := _AWS_FILLERS.search(name):
                name = name[: filler.start()].strip("-_")
            return Usage(name or _EDITION.sub("", product), token_type, _aws_mode(rest), region)
    return Usage(_EDITION.sub("", product), "", "", region)


def _aws_mode(words: str) -> str:
    if "batch" in words.lower():
        return BATCH
    tier = _TIERS.search(words)
    return tier[0].lower() if tier else ON_DEMAND


def of_azure(meter: str) -> Usage:
    """The usage behind a meter's name."""
    words = [word for word in _JOINS.split(meter) if word]
    lower = [word.lower() for word in words]
    said = set(lower)
    name = " ".join(word for word in lower if word not in _NO_NAMES)
    mode = BATCH if "batch" in said else ON_DEMAND
    if said & _CACHED and said & _WRITE:
        return Usage(name, "cache_write", mode)
    if said & _INPUT:
        return Usage(name, "cached_input" if said & _CACHED else "input", mode)
    if said & _OUTPUT:
        return Usage(name, "output", mode)
    return Usage(name, "", mode)
