"""Everything that Lowtide raises on purpose.

    LowtideError
    ├── ConfigError          the user's input is wrong: a job file, a flag, an environment variable (exit code 2)
    │   └── MissingExtra     an optional package is not installed; the message holds the pip command
    ├── StoreError           a store could not do what was asked
    │   ├── NotFound         the object is not there
    │   └── UnsafeStore      put-if-absent does not hold on this store, so nothing may be run on it
    ├── Transient            may work if tried again: the only kind that is ever retried
    ├── Terminal             will fail again in the same way until somebody changes something
    │   └── OurBug           what no user can mend; says so, and keeps its traceback in logs
    ├── SubmitUnknown        a create call was sent and its outcome is unknown: look it up, never guess
    ├── QuotaFull            the provider has no room now: wait, nothing was accepted
    ├── BudgetExceeded       the next submission would pass a cap (exit code 5)
    ├── StalePlan            what was planned is no longer what is there (exit code 3)
    └── CorruptJournal       an event could not be read, or does not fit the state it follows

Messages name the file, field or object, what was found, and what to do. They never hold document text or secrets.
"""

from __future__ import annotations


class LowtideError(Exception):
    """Base of all errors that Lowtide raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(LowtideError):
    """The user's input is wrong; nothing was started and nothing was spent."""

    exit_code = 2


class MissingExtra(ConfigError):
    """An optional package is needed and not installed."""

    def __init__(self, feature: str, extra: str, package: str) -> None:
        super().__init__(
            f"{feature} needs the package {package!r}, which is not installed: pip install 'lowtide[{extra}]'"
        )
        self.extra = extra


class StoreError(LowtideError):
    """A store could not do what was asked of it; `uri` names the object."""

    def __init__(self, message: str, uri: str = "") -> None:
        super().__init__(message)
        self.uri = uri


class NotFound(StoreError):
    """There is no object under that name."""


class UnsafeStore(StoreError):
    """The store let two writers create the same object, so the journal cannot be kept on it."""

    exit_code = 2


class Transient(LowtideError):
    """May work if tried again, and is known to have had no effect."""


class Terminal(LowtideError):
    """Will fail again in the same way until somebody changes something."""


class OurBug(Terminal):
    """No user can mend it: whoever looks into it needs to know where it came up."""

    def __str__(self) -> str:
        return f"{super().__str__()} (this is a bug of Lowtide, please report it)"


class SubmitUnknown(LowtideError):
    """A create call was sent and no answer says whether it was accepted."""


class QuotaFull(LowtideError):
    """The provider has no room for another batch now; it has accepted nothing."""


class BudgetExceeded(LowtideError):
    """The next submission would pass a spending cap."""

    exit_code = 5


class StalePlan(LowtideError):
    """Inputs, prompts, model or prices are no longer those of the plan."""

    exit_code = 3


class CorruptJournal(LowtideError):
    """An event of a run's journal cannot be read, or does not fit the state that it follows."""
