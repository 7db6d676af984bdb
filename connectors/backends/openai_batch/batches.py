"""A provider's batch, read without trust in its types, and what it means.

The SDK checks nothing of what it is sent: Azure's samples show `Validating`, `""` for no file, and ISO timestamps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from lowtide.records import BatchStatus, Fault, Outcome, Usage

TOKEN_KEY = "lowtide_token"  # noqa: S105 - the name of a metadata entry

_OUTCOMES: Mapping[str, Outcome] = {
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}

QUOTA_CODES = frozenset({"token_limit_exceeded"})
QUOTA_WORDS = ("token_limit_exceeded", "enqueued token limit")
"""Where the code is missing, these stand in the message (reported by users of both providers)."""

_OURS = frozenset({
    "duplicate_custom_id", "empty_file", "invalid_custom_id", "invalid_json_line", "invalid_method", "invalid_url",
    "mismatched_model", "missing_required_parameter", "model_mismatch", "too_many_tasks", "url_mismatch",
})  # fmt: skip
_YOURS: Mapping[str, str] = {
    "model_not_found": "check the model's or the deployment's name, and that it is deployed for batches",
    "invalid_request": "the provider takes no such request from this model: check model, parameters and call",
    "input_no_permissions": "give the resource's system-assigned identity Storage Blob Data Contributor on the account",
}
_SHOWN = 3
_SAID = 200
_MOST = 2**40


@dataclass(frozen=True, slots=True)
class BatchFault:
    """One entry of `errors.data`. `line` is None where it is about no line."""

    code: str
    said: str
    line: int | None

    def __str__(self) -> str:
        at = f" (line {self.line})" if self.line is not None else ""
        return f"{self.code or 'no code'}{at}: {self.said}" if self.said else f"{self.code or 'no code'}{at}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many requests of a batch were answered, were rejected, and are in it."""

    completed: int
    failed: int
    total: int


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as the provider shows it. `state` is in lower case; what is absent is "" or None."""

    id: str
    state: str
    token: str
    created_at: float | None
    input_file: str
    output_file: str
    error_file: str
    input_blob: str
    output_blob: str
    error_blob: str
    counts: Counts | None
    usage: Usage | None
    faults: tuple[BatchFault, ...]

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not, and for states that nobody knows."""
        return _OUTCOMES.get(self.state)


def read_batch(data: object) -> RemoteBatch:
    """Raises ValueError if this is no batch: no object, or none with an id. One without a status has not ended."""
    if not isinstance(data, Mapping):
        raise ValueError("no JSON object")
    identity, state = _text(data.get("id")), _text(data.get("status")).strip().lower()
    if not identity:
        raise ValueError("no id")
    metadata = data.get("metadata")
    errors = data.get("errors")
    listed = errors.get("data") if isinstance(errors, Mapping) else errors
    return RemoteBatch(
        id=identity,
        state=state,
        token=_text(metadata.get(TOKEN_KEY)) if isinstance(metadata, Mapping) else "",
        created_at=_moment(data.get("created_at")),
        input_file=_text(data.get("input_file_id")),
        output_file=_text(data.get("output_file_id")),
        error_file=_text(data.get("error_file_id")),
        input_blob=_text(data.get("input_blob")),
        output_blob=_text(data.get("output_blob")),
        error_blob=_text(data.get("error_blob")),
        counts=_counts(data.get("request_counts")),
        usage=_usage(data.get("usage")),
        faults=tuple(_fault(entry) for entry in listed) if isinstance(listed, list) else (),
    )


def status_of(batch: RemoteBatch, *, region: str = "") -> BatchStatus:
    """What the engine needs to know of the batch."""
    answered = batch.counts.completed + batch.counts.failed if batch.counts else 0
    if batch.outcome is None:
        return BatchStatus(batch.state, None, answered, region=region)
    fault = _fault_of(batch)
    return BatchStatus(
        provider_state=batch.state,
        outcome=batch.outcome,
        answered=answered,
        reason=_reason(batch, fault),
        charged=_charged(batch, fault),
        usage=batch.usage,
        fault=fault,
        region=region,
    )


def is_quota(code: str, said: str) -> bool:
    """Whether an error says that the quota of enqueued tokens is full."""
    return code in QUOTA_CODES or any(word in said.lower() for word in QUOTA_WORDS)


def _charged(batch: RemoteBatch, fault: Fault) -> int | None:
    """How many requests were answered and are paid for; None where the counts cannot be what happened.

    Counts of zero beside a file of answers, or a completed batch whose counts do not add up, say nothing: records
    without a line may have been paid for, and must not be asked again on such a word. A batch that failed before it
    began was charged nothing, though Azure names files for it, and counts of null.
    """
    counts = batch.counts
    if fault and (counts is None or not counts.completed):
        return 0
    if counts is None:
        return None
    told = counts.completed + counts.failed
    if told > counts.total or (batch.outcome == "completed" and told != counts.total):
        return None
    if told == 0 and (batch.output_file or batch.outcome == "completed"):
        return None
    return counts.completed


def _fault_of(batch: RemoteBatch) -> Fault:
    if batch.outcome != "failed":
        return ""
    if any(is_quota(fault.code, fault.said) for fault in batch.faults):
        return "quota"
    return "fatal" if any(fault.code in _OURS or fault.code in _YOURS for fault in batch.faults) else ""


def _reason(batch: RemoteBatch, fault: Fault) -> str:
    if batch.outcome == "expired":
        return "the batch expired before all of it was answered"
    if batch.outcome == "cancelled":
        return "the batch was cancelled"
    if batch.outcome != "failed":
        return ""
    found = f"the batch failed: {_listed(batch.faults) or 'the provider gives no reason'}"
    if fault == "quota":
        return f"{found} (a shard larger than the whole quota never fits: set enqueued_tokens to the quota)"
    codes = [entry.code for entry in batch.faults]
    if any(code in _OURS for code in codes):
        return f"{found} (Lowtide must never write such a file: this is a bug of Lowtide, please report it)"
    advice = next((_YOURS[code] for code in codes if code in _YOURS), "")
    return f"{found} ({advice})" if advice else found


def _listed(faults: tuple[BatchFault, ...]) -> str:
    """The first few kinds of errors, each once with how many lines have the same."""
    alike: dict[tuple[str, str], list[BatchFault]] = {}
    for fault in faults:
        alike.setdefault((fault.code, fault.said), []).append(fault)
    shown = []
    for kind in list(alike.values())[:_SHOWN]:
        shown.append(str(kind[0]))
        if (others := len(kind) - 1) > 0:
            shown.append(f"and {others} more {'line' if others == 1 else 'lines'} like it")
    more = sum(map(len, list(alike.values())[_SHOWN:]))
    return "; ".join([*shown, f"and {more} more"] if more else shown)


def _fault(entry: object) -> BatchFault:
    if not isinstance(entry, Mapping):
        return BatchFault("", "", None)
    line = entry.get("line")
    said = " ".join(_text(entry.get("message")).split())[:_SAID]
    return BatchFault(_text(entry.get("code")).lower(), said, line if isinstance(line, int) else None)


def _counts(data: object) -> Counts | None:
    if not isinstance(data, Mapping):
        return None
    completed, failed, total = (_count(data.get(name)) for name in ("completed", "failed", "total"))
    if completed is None or failed is None or total is None:
        return None
    return Counts(completed, failed, total)


def _usage(data: object) -> Usage | None:
    if not isinstance(data, Mapping):
        return None
    asked, given = _count(data.get("input_tokens")), _count(data.get("output_tokens"))
    if asked is None or given is None or not asked + given:
        return None
    return Usage(
        input_tokens=asked,
        output_tokens=given,
        cached_tokens=_detail(data.get("input_tokens_details"), "cached_tokens"),
        reasoning_tokens=_detail(data.get("output_tokens_details"), "reasoning_tokens"),
    )


def _detail(data: object, name: str) -> int:
    return (_count(data.get(name)) or 0) if isinstance(data, Mapping) else 0


def _count(value: object) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST
    return int(value) if known else None  # type: ignore[call-overload]  # a number, by the line above


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _moment(value: object) -> float | None:
    """Seconds since the epoch, from a number or an ISO timestamp; one without a zone is in UTC."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str):
        return None
    if value.isdecimal():
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
