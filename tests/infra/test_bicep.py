"""The Bicep templates, read by a parser that is not Microsoft's: their syntax, and what they say of access.

What PyPI and npm have of the Bicep compiler fetches it from Microsoft's own servers, so that nothing here knows
whether Azure takes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pycep import BicepParser

AZURE = Path(__file__).parents[2] / "infra" / "azure"
PAGE = Path(__file__).parents[2] / "docs" / "operations" / "deploy-azure.md"
TEMPLATES = ["openai.bicep", "storage.bicep", "worker.bicep"]

# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
ROLES = {
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "a001fd3d-188f-4b5d-821b-7da978bf7442": "Cognitive Services OpenAI Contributor",
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "AcrPull",
}
GRANTED = {
    ("storage.bicep", "readsDocuments"): ("identity", "Storage Blob Data Reader", "documents"),
    ("storage.bicep", "keepsResults"): ("identity", "Storage Blob Data Contributor", "results"),
    ("storage.bicep", "writesBatches"): ("identity", "Storage Blob Data Contributor", "batches"),
    ("storage.bicep", "readsSecrets"): ("identity", "Key Vault Secrets User", "vault"),
    ("storage.bicep", "readsTables"): ("readerPrincipalId", "Storage Blob Data Reader", "results"),
    ("openai.bicep", "asks"): ("identity", "Cognitive Services OpenAI Contributor", "account"),
    ("openai.bicep", "answers"): ("account", "Storage Blob Data Contributor", "batches"),
    ("worker.bicep", "pullsImage"): ("identity", "AcrPull", "registry"),
}
"""Who may do what, and where: all of it."""

CLOSED = [("storage.bicep", "account"), ("storage.bicep", "vault"), ("openai.bicep", "account")]
"""What has a firewall of its own."""
ENDPOINTS = {"Microsoft.Storage", "Microsoft.KeyVault", "Microsoft.CognitiveServices"}
"""What a subnet needs so that these firewalls know it."""


@cache
def read(name: str) -> dict[str, Any]:
    return dict(BicepParser().parse(text=(AZURE / name).read_text(encoding="utf-8")))


def config(name: str, symbol: str) -> dict[str, Any]:
    found = read(name)["resources"][symbol]["config"]
    # A condition stands around the body.
    return dict(found.get("config", found))


def values(found: object) -> Iterator[str]:
    if isinstance(found, dict):
        for inner in found.values():
            yield from values(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from values(inner)
    elif isinstance(found, str):
        yield found


def test_these_are_all() -> None:
    assert sorted(path.name for path in AZURE.glob("*.bicep")) == TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_it_is_bicep_and_every_parameter_is_described(name: str) -> None:
    for key, found in read(name)["parameters"].items():
        assert "description" in {decorator["type"] for decorator in found["decorators"]}, key
    for key, found in read(name)["outputs"].items():
        assert "description" in {decorator["type"] for decorator in found["decorators"]}, key


def test_the_parser_sees_a_missing_brace() -> None:
    text = (AZURE / "storage.bicep").read_text(encoding="utf-8")
    with pytest.raises(Exception, match="Unexpected"):
        BicepParser().parse(text=text.replace("  sku: {\n", "  sku: \n", 1))


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_name_that_is_used_is_defined(name: str) -> None:
    found = read(name)
    defined = {*found["parameters"], *found["variables"], *found["resources"]}
    text = (AZURE / name).read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) - {"take", "uniqueString", "environment"} <= defined
    assert set(re.findall(r"(?:parent|scope): (\w+)$", text, re.MULTILINE)) <= defined
    assert set(re.findall(r"(?<![\w.'/])(\w+)\.(?:id|name|properties|identity)\b", text)) <= defined


def test_roles_are_given_as_intended_and_no_others() -> None:
    given = {}
    for name in TEMPLATES:
        for symbol, found in read(name)["resources"].items():
            if found["type"] != "Microsoft.Authorization/roleAssignments":
                continue
            body = config(name, symbol)
            granted = body["properties"]
            role = granted["roleDefinitionId"]["function"]["parameters"]["resource_name_1"]
            role_id = str(read(name)["variables"][role]["value"])
            given[name, symbol] = (_principal(granted["principalId"]), ROLES[role_id], body["scope"])
    assert given == GRANTED


def _principal(found: Any) -> str:
    """`identity` of `identity.properties.principalId`, or the name of a parameter."""
    return str(found if isinstance(found, str) else found["operator"]["operands"]["operand_1"])


def parameter(name: str, symbol: str) -> dict[str, Any]:
    return dict(read(name)["parameters"][symbol])


def variable(name: str, symbol: str) -> Any:
    return read(name)["variables"][symbol]["value"]


@pytest.mark.parametrize(("name", "symbol"), CLOSED)
def test_nobody_comes_in_unless_the_network_is_named(name: str, symbol: str) -> None:
    assert config(name, symbol)["properties"]["networkAcls"] == {
        "bypass": "AzureServices",
        "defaultAction": "networkDefault",
        "ipRules": "addressRules",
        "virtualNetworkRules": "subnetRules",
    }
    assert parameter(name, "networkDefault")["default"] == "Deny"
    [allowed] = [one["argument"] for one in parameter(name, "networkDefault")["decorators"] if one["type"] == "allowed"]
    assert set(allowed) == {"Allow", "Deny"}
    assert parameter(name, "allowedIps")["default"] == []
    rules = variable(name, "addressRules")
    assert rules["loop_type"]["detail"] == {"item_name": "address", "array_name": "allowedIps"}
    assert rules["config"] == {"value": "address"}


def test_the_workers_subnet_is_admitted_everywhere() -> None:
    text = (AZURE / "storage.bicep").read_text(encoding="utf-8")
    assert "var makesNetwork = networkDefault == 'Deny' && empty(subnetId)\n" in text
    assert "var workerSubnetId = makesNetwork ? subnet.id : subnetId\n" in text
    assert read("storage.bicep")["resources"]["network"]["config"]["condition"] == "makesNetwork"
    assert "{'id': 'workerSubnetId'}" in str(variable("storage.bicep", "subnetRules"))
    assert "{'id': 'subnetId'}" in str(variable("openai.bicep", "subnetRules"))
    assert read("storage.bicep")["outputs"]["subnetId"]["value"] == "workerSubnetId"
    # It has to be said of the others, so that none is left outside by being forgotten.
    assert parameter("openai.bicep", "subnetId")["default"] is None
    assert parameter("worker.bicep", "subnetId")["default"] is None
    assert parameter("storage.bicep", "subnetId")["default"] == ""


def test_the_subnet_that_is_made_is_one_for_container_apps_that_the_firewalls_know() -> None:
    network = config("storage.bicep", "network")["properties"]
    [made] = network["subnets"]
    assert made["name"] == config("storage.bicep", "subnet")["name"]
    assert config("storage.bicep", "subnet")["parent"] == "network"
    assert {one["service"] for one in made["properties"]["serviceEndpoints"]} == ENDPOINTS
    [delegation] = made["properties"]["delegations"]
    assert delegation["properties"]["serviceName"] == "Microsoft.App/environments"
    assert network["addressSpace"]["addressPrefixes"] == [made["properties"]["addressPrefix"]] == ["networkRange"]
    smallest = 27
    # https://learn.microsoft.com/azure/container-apps/custom-virtual-networks
    assert ip_network(parameter("storage.bicep", "networkRange")["default"]).prefixlen <= smallest


def test_the_worker_is_in_that_subnet_in_an_environment_with_profiles() -> None:
    environment = config("worker.bicep", "apps")["properties"]
    assert "'infrastructureSubnetId': 'subnetId'" in str(environment["vnetConfiguration"])
    [profile] = environment["workloadProfiles"]
    assert profile["workloadProfileType"] == "Consumption"
    assert config("worker.bicep", "worker")["properties"]["workloadProfileName"] == profile["name"]


def test_the_page_says_what_has_to_be_given_and_what_opens_the_network() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in TEMPLATES:
        for key, found in read(name)["parameters"].items():
            if found["default"] is None or key in {"networkDefault", "allowedIps", "networkRange", "readerPrincipalId"}:
                assert re.search(rf"\b{key}\b", page), f"{name}: {key}"


READ = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
BLOBS = READ.removesuffix("/read")


def holds(action: str, suboperation: str = "", **attributes: str) -> bool:
    """Whether the condition on the reader's role lets it through; an attribute that is not there fits nothing.

    Knows what this condition uses. https://learn.microsoft.com/azure/role-based-access-control/conditions-format
    """
    said = str(config("storage.bicep", "readsTables")["properties"]["condition"])
    known = {"rootPrefix": parameter("storage.bicep", "rootPrefix")["default"]}
    while names := re.findall(r"\$\{(\w+)\}", said):
        for name in names:
            said = said.replace("${" + name + "}", str(known.get(name) or variable("storage.bicep", name)))
    said = said.replace("\\'", "'")
    said = re.sub(r"SubOperationMatches\{'([^']+)'\}", lambda found: str(found[1] == suboperation), said)
    said = re.sub(r"ActionMatches\{'([^']+)'\}", lambda found: str(found[1] == action), said)
    compared = rf"@(?:Resource|Request)\[{BLOBS}:(\w+)\] (\w+) '([^']*)'"
    said = re.sub(compared, lambda found: str(_fits(found[2], attributes.get(found[1]), found[3])), said)
    while said not in {"True", "False"}:
        before = said
        said = re.sub(r"\((True|False)\)", r"\1", said)
        said = re.sub(r"(?:!|NOT )(True|False)", lambda found: str(found[1] == "False"), said)
        said = re.sub(r"(True|False) AND (True|False)", lambda found: str("False" not in found.groups()), said)
        if said == before:
            said = re.sub(r"(True|False) OR (True|False)", lambda found: str("True" in found.groups()), said, count=1)
        assert said != before, f"not understood: {said}"
    return said == "True"


def _fits(operator: str, found: str | None, wanted: str) -> bool:
    if operator == "StringStartsWith":
        return found is not None and found.startswith(wanted)
    assert operator == "StringEquals", operator
    return found == wanted


def test_who_reads_lists_and_reads_the_tables_and_nothing_else() -> None:
    table = "lowtide/tables/results/job=a/window=all/results.parquet"
    assert holds(READ, path=table)
    assert holds(READ, "Blob.List", prefix="lowtide/tables/results/")
    assert holds(READ, "Blob.List", prefix="lowtide/tables")
    for kind in ("requests", "raw", "rows"):
        assert not holds(READ, path=f"lowtide/runs/a/all/r/{kind}/x")
        assert not holds(READ, "Blob.List", prefix=f"lowtide/runs/a/all/r/{kind}/")
    assert not holds(READ, path="lowtide/tables-of-others/x")
    for prefix in ("", "lowtide/", "lowtide/runs/", "lowtide/tables-of-others/"):
        assert not holds(READ, "Blob.List", prefix=prefix)
    assert not holds(READ, "Blob.List")
    # The path of what is read says nothing about what is listed, nor the other way round.
    assert not holds(READ, "Blob.List", path=table)
    assert not holds(READ, prefix="lowtide/tables/")


def test_the_storage_account_is_closed_and_keeps_what_is_deleted() -> None:
    account = config("storage.bicep", "account")["properties"]
    assert account["allowBlobPublicAccess"] is False
    assert account["allowSharedKeyAccess"] is False
    assert account["minimumTlsVersion"] == "TLS1_2"
    assert account["supportsHttpsTrafficOnly"] is True
    blobs = config("storage.bicep", "blobs")["properties"]
    assert blobs["isVersioningEnabled"] is True
    assert blobs["deleteRetentionPolicy"]["enabled"] is True
    for container in ("documents", "results", "batches"):
        assert config("storage.bicep", container)["properties"]["publicAccess"] == "None"


def test_the_lifecycle_keeps_runs_unless_it_is_asked_to_delete_them() -> None:
    variables = read("storage.bicep")["variables"]
    lasting = list(values(variables["lasting"]["value"]))
    assert "batches/" in lasting
    assert not [value for value in lasting if "runs" in value]
    text = (AZURE / "storage.bicep").read_text(encoding="utf-8")
    assert "param runsDays int = 0" in text
    assert "rules: concat(lasting, runsDays > 0 ? passing : [])" in text


def test_the_account_takes_batches_and_no_keys() -> None:
    account = config("openai.bicep", "account")
    assert account["kind"] == "OpenAI"
    assert account["identity"] == {"type": "SystemAssigned"}
    assert account["properties"]["disableLocalAuth"] is True
    types = read("openai.bicep")["parameters"]["deploymentType"]
    assert types["default"] == "GlobalBatch"
    [allowed] = [decorator["argument"] for decorator in types["decorators"] if decorator["type"] == "allowed"]
    assert set(allowed) == {"GlobalBatch", "DataZoneBatch"}
    assert config("openai.bicep", "deployment")["sku"]["name"] == "deploymentType"


def test_the_worker_has_no_ingress_and_gets_its_secrets_from_the_vault() -> None:
    worker = config("worker.bicep", "worker")
    assert worker["identity"]["type"] == "UserAssigned"
    assert "ingress" not in worker["properties"]["configuration"]
    text = (AZURE / "worker.bicep").read_text(encoding="utf-8")
    assert text.count("keyVaultUrl:") == text.count("secretRef:") == 2
    assert set(re.findall(r"name: '(PREFECT\w+|AZURE\w+)'\n    (\w+)", text)) == {
        ("PREFECT_API_KEY", "secretRef"),
        ("PREFECT_API_AUTH_STRING", "secretRef"),
        ("PREFECT_API_URL", "value"),
        ("PREFECT_WORKER_WEBSERVER_PORT", "value"),
        ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "value"),
        ("AZURE_CLIENT_ID", "value"),
    }


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_secret_stands_in_a_template_or_goes_through_a_parameter(name: str) -> None:
    text = (AZURE / name).read_text(encoding="utf-8")
    assert "Microsoft.KeyVault/vaults/secrets" not in text
    assert not re.findall(r"param \w*(?:[pP]assword|[kK]ey|[tT]oken)\b", text)
