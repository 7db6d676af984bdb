"""Telling a secret that was written into a job file, so that it is refused and never repeated."""

from __future__ import annotations

import re

REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
BLOCK = re.compile(r"prefect://secret/[a-z0-9][a-z0-9-]*")
INSTEAD = "write ${NAME} and set it in the environment, or prefect://secret/<block> for a Prefect Secret block"

# Whole words of a key's name. "tokens" and "max_tokens" are counts, so only the singular is here; and what ends in
# one of _NAMES says where a secret is, and is none.
_WORDS = {
    "key",
    "apikey",
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "credential",
    "credentials",
    "sas",
}
_PHRASES = ("connection_string", "connectionstring", "access_key", "accesskey", "account_key", "accountkey")
_NAMES = {"id", "arn", "url", "uri", "name", "file", "env", "vault"}
# Keys of the job file that are named like a secret, and hold an address.
_KNOWN = {"kms_key"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATOR = re.compile(r"[^a-z0-9]+")

_CREDENTIALS = (
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{16,}")),
    ("a storage account key", re.compile(r"\b(?:AccountKey|SharedAccessKey)\s*=\s*[^;\s'\"]+", re.IGNORECASE)),
    ("a shared access signature", re.compile(r"\bsig=[A-Za-z0-9%+/=_-]{16,}", re.IGNORECASE)),
    (
        "a user name and password",
        re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://[^\s/:@'\"]*:[^\s/@'\"]+@", re.IGNORECASE),
    ),
    (
        "an access token",
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|xox[abps]-[A-Za-z0-9-]{10,}|hf_[A-Za-z0-9]{20,})"),
    ),
    ("a bearer token", re.compile(r"\bBearer\s+[A-Za-z0-9._~+/-]{16,}=*", re.IGNORECASE)),
    ("a JSON web token", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*")),
)


def credential_in(text: str) -> str | None:
    """What kind of credential stands in a text, or None. References to the environment are no credentials."""
    literal = REFERENCE.sub("", text)
    return next((kind for kind, pattern in _CREDENTIALS if pattern.search(literal)), None)


def is_secret_name(key: str) -> bool:
    """Whether a key's name says that its value is a secret, as `api_key` and `connectionString` do."""
    if key in _KNOWN:
        return False
    words = [word for word in _SEPARATOR.split(_CAMEL.sub("_", key).lower()) if word]
    if not words or words[-1] in _NAMES:
        return False
    return not _WORDS.isdisjoint(words) or any(phrase in "_".join(words) for phrase in _PHRASES)


def is_reference(text: str) -> bool:
    """Whether a text is nothing but a reference: a default inside it would be a literal secret again."""
    return bool(REFERENCE.fullmatch(text) or BLOCK.fullmatch(text))


def hide(text: str) -> str:
    """The text with whatever looks like a credential replaced."""
    for _, pattern in _CREDENTIALS:
        text = pattern.sub("(hidden)", text)
    return text
