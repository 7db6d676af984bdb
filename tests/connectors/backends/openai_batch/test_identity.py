"""Tokens of Microsoft Entra in place of a key."""

from __future__ import annotations

import logging
import sys

import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.identity import CredentialUnavailableError
from support.openai_support import ended, request_of, shard_of

from lowtide.connectors.backends.openai_batch import open_azure
from lowtide.connectors.backends.openai_batch.identity import entra_tokens, explained
from lowtide.errors import MissingExtra, Terminal, Transient
from lowtide.job.backends import AzureBatchBackend


def opened(url, tokens, **options):
    asked = {"model": "gpt-4.1-mini", "deployment": "gpt-4.1-mini-batch", "endpoint": url, "auth": "entra", **options}
    return open_azure(AzureBatchBackend.model_validate(asked), environ={}, tokens=tokens)


@pytest.mark.parametrize("api", ["v1", "2025-04-01-preview"])
def test_a_fresh_token_goes_with_each_call(emulator, api):
    given = []

    def tokens():
        given.append(f"token-{len(given)}")
        return given[-1]

    backend = opened(emulator.url, tokens, api=api)
    batch_id = backend.submit(shard_of(backend, [request_of(1)]), "t1")
    assert ended(backend, batch_id).outcome == "completed"
    assert len(given) >= 3


@pytest.mark.parametrize(("token", "said"), [("invalid", "Microsoft Entra identity"), ("denied", "OpenAI Contributor")])
def test_a_token_that_is_refused_says_what_is_missing(emulator, token, said):
    backend = opened(emulator.url, lambda: token)
    with pytest.raises(Terminal, match=said):
        backend.submit(shard_of(backend, [request_of(1)]), "t1")
    with pytest.raises(Terminal, match=said):
        backend.find("t1")


@pytest.mark.parametrize("kind", [Terminal, Transient])
def test_no_token_means_that_nothing_was_sent(emulator, kind):
    given = iter(["good", "good"])

    def tokens():
        token = next(given, None)
        if token is None:
            raise kind("no token")
        return token

    # Two calls, upload and the look at the file, have one; the create call has none.
    emulator.settings(openai={"file_seconds": 1.0})
    backend = opened(emulator.url, tokens)
    with pytest.raises(kind, match="no token"):
        backend.submit(shard_of(backend, [request_of(1)]), "t1")
    assert "create" not in emulator.calls()["counts"]["azure"]


def test_no_identity_is_found_when_a_run_is_looked_at(emulator):
    def tokens():
        raise Terminal("no identity: run az login")

    [finding] = opened(emulator.url, tokens).examine()
    assert (finding.name, finding.ok) == ("credentials", False)
    assert "az login" in finding.found


def test_a_missing_package_is_named_with_its_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(MissingExtra, match=r"pip install 'lowtide\[azure\]'"):
        entra_tokens({})


def failing(error, cause=None):
    def provider():
        raise error from cause

    return explained(provider)


def test_an_identity_that_is_refused_or_not_found_is_a_matter_for_the_user():
    for error in (
        ClientAuthenticationError("AADSTS7000215: Invalid client secret"),
        CredentialUnavailableError("none"),
    ):
        with pytest.raises(Terminal, match="az login"):
            failing(error)()


def test_a_network_that_is_down_is_passing_however_it_is_told():
    down = ServiceRequestError("Failed to resolve 'login.microsoftonline.com'")
    for token in (failing(down), failing(ClientAuthenticationError("Authentication failed"), down)):
        with pytest.raises(Transient):
            token()


def test_a_long_refusal_is_cut_between_words():
    words = [f"identity-{number}" for number in range(100)]
    with pytest.raises(Terminal) as caught:
        failing(ClientAuthenticationError(" ".join(words)))()
    told = str(caught.value).partition(": ")[2].partition(" (run")[0]
    assert told.endswith(" ...")
    assert set(told.removesuffix(" ...").split()) < set(words)


@pytest.mark.parametrize(("level", "shown"), [(logging.NOTSET, False), (logging.WARNING, True)])
def test_the_identity_library_s_warnings_are_shown_only_to_who_asks_for_them(caplog, monkeypatch, level, shown):
    logger = logging.getLogger("azure.identity")
    monkeypatch.setattr(logger, "level", logger.level)
    logger.setLevel(level)
    entra_tokens({})
    logging.getLogger("azure.identity._credentials.chained").warning("failed to retrieve a token")
    assert bool(caplog.records) is shown
    logger.setLevel(logging.NOTSET)
