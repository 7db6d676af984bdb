"""Keys, addresses and identities: where they come from, and that they are never repeated."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.openai_support import KEY

from lowtide.connectors.backends.openai_batch import open_azure, open_openai
from lowtide.connectors.backends.openai_batch.account import azure_account, openai_account
from lowtide.errors import ConfigError
from lowtide.job.backends import AzureBatchBackend, OpenAIBatchBackend

NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT")


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def azure(environ, endpoint="https://n.openai.azure.com", region="", auth="key", api="v1", **more):
    return azure_account(endpoint, region=region, auth=auth, api=api, environ=environ, **more)


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        open_openai(OpenAIBatchBackend(model="m"), environ={})
    with pytest.raises(ConfigError, match="AZURE_OPENAI_API_KEY"):
        azure({})


def test_a_missing_endpoint_is_named():
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT"):
        open_azure(AzureBatchBackend(model="m", deployment="d"), environ={"AZURE_OPENAI_API_KEY": KEY})


def test_the_job_file_goes_before_the_environment_and_that_given_before_the_processs(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-process")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://process/v1")
    assert openai_account(None, None).base_url == "http://process/v1"
    assert openai_account(None, {"OPENAI_BASE_URL": "http://given/v1/"}).base_url == "http://given/v1"
    account = openai_account("http://job/v1", {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://given/v1"})
    assert (account.base_url, account.key) == ("http://job/v1", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert openai_account(None, None).base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("endpoint", "api", "base"),
    [
        ("https://n.openai.azure.com", "v1", "https://n.openai.azure.com/openai/v1"),
        ("https://n.openai.azure.com/", "v1", "https://n.openai.azure.com/openai/v1"),
        ("https://n.openai.azure.com/openai/v1/", "v1", "https://n.openai.azure.com/openai/v1"),
        ("https://n.openai.azure.com/openai", "2025-04-01-preview", "https://n.openai.azure.com/openai"),
    ],
)
def test_an_endpoint_may_be_written_in_several_ways(endpoint, api, base):
    account = azure({"AZURE_OPENAI_API_KEY": KEY}, endpoint, api=api)
    assert account.base_url == base
    assert account.version == ("" if api == "v1" else api)


@pytest.mark.parametrize("endpoint", ["n.openai.azure.com", "ftp://x", "https://"])
def test_what_is_no_address_is_refused(endpoint):
    with pytest.raises(ConfigError, match="https://"):
        azure({"AZURE_OPENAI_API_KEY": KEY}, endpoint)


@pytest.mark.parametrize("api", ["V1", "2025-04", "latest"])
def test_what_is_no_api_version_is_refused(api):
    with pytest.raises(ConfigError, match="api-version"):
        azure({"AZURE_OPENAI_API_KEY": KEY}, api=api)


def test_each_region_may_have_a_key_of_its_own():
    environ = {"AZURE_OPENAI_API_KEY": "shared", "AZURE_OPENAI_API_KEY_SWEDEN_CENTRAL": "own"}
    assert azure(environ, region="sweden-central").key == "own"
    assert azure(environ, region="eastus").key == "shared"


@pytest.mark.parametrize("key", ["sk-\nx", "sk-\u00e4", "sk-\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_repeating_it(key):
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        openai_account(None, {"OPENAI_API_KEY": key})
    assert key not in str(caught.value)


def test_a_key_does_not_show_where_an_account_is_printed():
    account = openai_account("http://user:password@host/v1", {"OPENAI_API_KEY": KEY})
    assert KEY not in repr(account)
    assert account.address == "http://host/v1"


def test_further_regions_need_names_that_are_their_own():
    def opened(**options):
        spec = AzureBatchBackend.model_validate({"model": "m", "deployment": "d", "endpoint": "http://a", **options})
        return open_azure(spec, environ={"AZURE_OPENAI_API_KEY": KEY})

    further = {"endpoint": "http://b", "deployment": "d", "region": "eastus"}
    with pytest.raises(ConfigError, match=r"^backends\[0\]\.azure-batch\.region: missing; expected "):
        opened(regions=[further])
    with pytest.raises(ConfigError, match="found 'eastus' twice"):
        opened(region="eastus", regions=[further])
    with pytest.raises(ConfigError, match=r"^backends\[0\]\.azure-batch\.deployment: found 65 characters; expected"):
        opened(deployment="d" * 65)
    assert opened(region="westus", regions=[further]).region == "westus"


def test_the_sdk_is_imported_only_when_something_is_called():
    program = """
import sys
from lowtide.connectors.backends.openai_batch import open_azure, open_openai
from lowtide.job.backends import OpenAIBatchBackend
backend = open_openai(OpenAIBatchBackend(model="gpt-4.1"), environ={"OPENAI_API_KEY": "k"})
backend.parse(b"{}"), backend.limits
sys.exit("openai" in sys.modules or "azure.identity" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize(
    "address",
    [
        "user:hunter2@gateway.internal/v1",
        "https://user:hunter2@",
        "http://[user:hunter2@host",
        "user:hunt/hunter2@h/x@y",
    ],
)
def test_a_password_in_what_is_no_address_is_not_repeated(address):
    for found in (
        lambda: openai_account(None, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": address}),
        lambda: azure({"AZURE_OPENAI_API_KEY": KEY}, address),
    ):
        with pytest.raises(ConfigError, match=r"^backends\[0\]\.(openai|azure)-batch\.[a-z_]+: found ") as caught:
            found()
        assert "hunter2" not in str(caught.value)
        assert "user" not in str(caught.value)


def test_a_password_with_a_slash_does_not_show_in_an_address():
    account = openai_account("http://user:hunt/er2@host/v1", {"OPENAI_API_KEY": KEY})
    assert account.address == "http://host/v1"


def test_a_further_region_is_named_by_its_place_in_the_job_file():
    further = {"endpoint": "nowhere", "deployment": "d", "region": "eastus"}
    spec = AzureBatchBackend.model_validate(
        {"model": "m", "deployment": "d", "endpoint": "http://a", "region": "westus", "regions": [further]}
    )
    with pytest.raises(ConfigError, match=r"^backends\[0\]\.azure-batch\.regions\[0\]\.endpoint: found 'nowhere'"):
        open_azure(spec, environ={"AZURE_OPENAI_API_KEY": KEY})


def test_places_say_where_batches_may_lie_and_no_secret():
    environ = {"OPENAI_API_KEY": KEY, "AZURE_OPENAI_API_KEY": KEY}
    asked = OpenAIBatchBackend(model="m", base_url="https://user:pass@Gateway.internal:8/v1")
    assert open_openai(asked, environ=environ).places == ("openai-batch:gateway.internal:8/v1",)
    described = {"model": "m", "deployment": "first", "endpoint": "https://A.openai.azure.com/", "region": "westus"}
    further = {"endpoint": "https://b.openai.azure.com", "deployment": "second", "region": "eastus"}
    expected = ("azure-batch:westus@a.openai.azure.com/first", "azure-batch:eastus@b.openai.azure.com/second")
    for api in ("v1", "2025-04-01-preview"):
        spec = AzureBatchBackend.model_validate({**described, "regions": [further], "api": api})
        assert open_azure(spec, environ=environ).places == expected
    alone = AzureBatchBackend.model_validate({**described, "region": None})
    assert open_azure(alone, environ=environ).places == ("azure-batch:a.openai.azure.com/first",)
