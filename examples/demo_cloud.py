"""The demo's job at three providers that are emulated here, and each run's ledger held against the provider's bill.

`lowtide emulate` is Bedrock, OpenAI and Azure OpenAI, moto is S3, and Azurite, where it is installed, is Blob Storage.
They are processes on the loopback, know nothing but what they are sent, and end with the demo. The documents are the
READMEs of the Python packages in this environment. There is no account and no key, and nothing leaves the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import fsspec
import pandas as pd

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "demo-out" / "cloud"
NODE = HERE.parent / ".node"
DEV = HERE.parent / "infra" / "dev"
BUCKET = "lowtide-demo"
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
WIDTH, MOST_LINES = 76, 5
FAILED_ROWS, INTERRUPTED = 4, 130
# Azurite's own, the same everywhere: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# What somebody's real accounts are found by must not be found by the demo.
ACCOUNTS = ("AWS_", "AZURE_", "OPENAI_", "LOWTIDE_")


@dataclass(frozen=True)
class Case:
    """One run: its heading, its job file, and where that reads and writes."""

    heading: str
    job: str
    documents: str
    root: str


@dataclass(frozen=True)
class Servers:
    """Addresses of what was started; `blob` is None where Azurite is not installed."""

    emulators: str
    blob: str | None


def main() -> int:
    options = _options()
    out: Path = options.out
    packages = readmes()
    with ExitStack() as running:
        print("Servers, on this machine. Answers are made up; every token is counted.", flush=True)
        servers = start(running, options.faults)
        print(f"\nDocuments, uploaded to them: the READMEs of {len(packages)} Python packages.", flush=True)
        cases = list(_cases(packages, out, servers))
        verdicts = [run(case, servers.emulators, out, faults=bool(options.faults)) for case in cases]
    print(f"\nReports, and the tables of the roots on disk, lie in {out}")
    return 0 if all(verdicts) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for reports and results")
    parser.add_argument("--faults", type=Path, help="what is to go wrong at the providers, for `lowtide emulate`")
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.out == OUT:
        shutil.rmtree(OUT, ignore_errors=True)
    elif options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: name another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def readmes() -> list[Path]:
    """The folders of installed packages with a README, each text once: the same question twice is billed twice."""
    folders = sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info"))
    texts = {
        path.read_bytes().partition(b"\n\n")[2]: path.parent
        for path in (f / "METADATA" for f in folders)
        if path.exists()
    }
    return [folder for text, folder in texts.items() if text.strip()]


def _cases(packages: Sequence[Path], out: Path, servers: Servers) -> Iterator[Case]:
    """The runs, each when its documents are there."""
    to_s3(packages)
    documents = f"s3://{BUCKET}/documents"
    yield Case("Bedrock: documents, batches and results on S3", "bedrock", documents, f"s3://{BUCKET}/lowtide")
    yield Case("OpenAI: documents on S3, results on disk", "openai", documents, str(out / "openai"))
    yield Case("Azure OpenAI: documents on S3, results on disk", "azure", documents, str(out / "azure"))
    if servers.blob is not None:
        to_blob(packages)
        where = f"abfs://{BUCKET}@{ACCOUNT}.dfs.core.windows.net"
        os.environ["DEMO_BLOB"] = f"{where}/batches"
        heading = "Azure OpenAI: documents, batches and results in Blob Storage"
        yield Case(heading, "blob", f"{where}/documents", f"{where}/lowtide")


def run(case: Case, emulators: str, out: Path, *, faults: bool) -> bool:
    """Run one job as a user would; True if its ledger is the bill. With `faults`, rows may fail."""
    job, page = f"demo-cloud-{case.job}.yaml", os.path.relpath(out / f"{case.job}.html", HERE)
    os.environ |= {"DEMO_DOCUMENTS": case.documents, "DEMO_ROOT": case.root}
    before = bill(emulators)
    print(f"\n{case.heading}\n{'-' * len(case.heading)}", flush=True)
    lowtide("plan", job, lines=("reads", "where", "cost"))
    fine = (0, FAILED_ROWS) if faults else (0,)
    lowtide("run", job, "--direct", lines=("rows", "answers", "tokens", "cost"), fine=fine)
    lowtide("show", job, "--rows", "2")
    lowtide("report", job, "--out", page, lines=())
    charged = bill(emulators)
    charged.subtract(before)
    return compare(ledger(case.root), charged)


def lowtide(*arguments: str, lines: Sequence[str] = ("",), fine: Sequence[int] = (0,)) -> None:
    """Run the command as a user would, and show the lines of its output that begin with one of `lines`, five at most.

    A code that is not `fine` ends the demo with it.
    """
    print(f"$ lowtide {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "lowtide", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    if ended.returncode not in fine:
        print(ended.stdout, ended.stderr, sep="\n")
        sys.exit(ended.returncode)
    wanted = [line for line in ended.stdout.splitlines() if line.startswith(tuple(lines))] if lines else []
    if len(wanted) > MOST_LINES:
        wanted[MOST_LINES - 1 :] = ["  [...]"]
    for line in wanted:
        print(f"  {line}", flush=True)


def ledger(root: str) -> Counter[str]:
    """What the root's one ledger says was used: tokens by type, none of which is part of another."""
    with fsspec.open_files(f"{root}/tables/ledger/**/*.parquet")[0] as file:
        lines = pd.read_parquet(file)
    used = lines[(lines["kind"] == "actual") & (lines["unit"] == "token")]
    return Counter({str(name): int(sum(group)) for name, group in used.groupby("token_type")["quantity"]})


def bill(emulators: str) -> Counter[str]:
    """What the providers have charged so far: tokens in the ledger's types, records, and different requests."""
    with urllib.request.urlopen(f"{emulators}/_emulator/bill") as answer:  # noqa: S310 - loopback
        said = json.load(answer)
    return Counter({
        "input": said["input_tokens"] - said["cached_tokens"],
        "cached_input": said["cached_tokens"],
        "output": said["output_tokens"] - said["reasoning_tokens"],
        "reasoning": said["reasoning_tokens"],
        "records": said["records"],
        "requests": said["requests"],
    })  # fmt: skip


def compare(used: Counter[str], charged: Counter[str]) -> bool:
    """Print ledger and bill, and say whether they are equal in every type of token, and nothing was billed twice."""
    types = ("input", "cached_input", "output", "reasoning")
    equal = all(used[name] == charged[name] for name in types)
    once = charged["records"] == charged["requests"]
    for name, tokens in (("ledger", used), ("bill", charged)):
        asked, answered = tokens["input"] + tokens["cached_input"], tokens["output"] + tokens["reasoning"]
        verdict = "" if name == "ledger" else ": equal" if equal else ": NOT EQUAL"
        print(f"  {name:<10} {asked:,} tokens in, {answered:,} out{verdict}")
    twice = charged["records"] - charged["requests"]
    print(f"  {'billed':<10} {charged['requests']:,} requests, {'each once' if once else f'{twice:,} OF THEM TWICE'}")
    return equal and once


def to_s3(packages: Sequence[Path]) -> None:
    """Upload the documents to a new bucket."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for package in packages:
        s3.upload_file(str(package / "METADATA"), BUCKET, f"documents/{package.name}/METADATA")


def to_blob(packages: Sequence[Path]) -> None:
    """Upload the documents to a new container."""
    from azure.storage.blob import BlobServiceClient  # noqa: PLC0415 - only where there is a server

    account = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    container = account.create_container(BUCKET)
    for package in packages:
        container.upload_blob(f"documents/{package.name}/METADATA", (package / "METADATA").read_bytes())


def start(running: ExitStack, faults: Path | None) -> Servers:
    """Start the servers, for as long as the stack is open, and point the environment at them."""
    logs = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="lowtide-demo-")))
    for name in [name for name in os.environ if name.startswith(ACCOUNTS)]:
        del os.environ[name]
    os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "COLUMNS": str(WIDTH)}
    started: list[Server] = []

    def begin(name: str, command: Sequence[str], ready: str) -> str:
        started.append(running.enter_context(serving(name, command, ready, logs)))
        return started[-1].url

    s3 = begin("S3", [sys.executable, str(DEV / "moto_server.py")], "/moto-api/")
    node, azurite = NODE / "bin" / "node", NODE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    blob = None
    if node.exists() and azurite.exists():
        quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location", str(logs)]
        blob = begin("Blob", [str(node), str(azurite), *quiet, "--blobHost", "127.0.0.1", "--blobPort"], "/")
    _point_at(s3, blob)
    planned = ["--faults", str(faults.resolve())] if faults else []
    emulate = [sys.executable, "-m", "lowtide", "emulate", *planned, "--port"]
    emulators = begin("providers", emulate, "/_emulator/health")
    for server in started:
        server.wait()
        print(f"  {server.name:<10} {server.url}", flush=True)
    if blob is None:
        print("  Blob       none: Azurite is not installed (infra/dev/node.sh does that)")
    os.environ |= {
        "AWS_ENDPOINT_URL_BEDROCK": emulators,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": emulators,
        "AWS_ENDPOINT_URL_SERVICE_QUOTAS": emulators,
        "OPENAI_BASE_URL": f"{emulators}/v1",
        "OPENAI_API_KEY": "emulated",
        "AZURE_OPENAI_ENDPOINT": emulators,
        "AZURE_OPENAI_API_KEY": "emulated",
    }
    return Servers(emulators, blob)


def _point_at(s3: str, blob: str | None) -> None:
    os.environ |= {
        "AWS_ENDPOINT_URL": s3,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "emulated",
        "AWS_SECRET_ACCESS_KEY": "emulated",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    if blob is not None:
        account = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={blob}/{ACCOUNT};"
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = f"DefaultEndpointsProtocol=http;{account}"


@dataclass(frozen=True)
class Server:
    """A process that answers at `url`, once `ready` does; what it says goes into `log`."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    ready: str
    log: Path

    def wait(self) -> None:
        """Wait until it answers; the demo ends if it does not."""
        until = time.monotonic() + READY_SECONDS
        while not _answers(self.url + self.ready):
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)


@contextmanager
def serving(name: str, command: Sequence[str], ready: str, logs: Path) -> Iterator[Server]:
    """Run a server whose last argument, a free port, is added here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = logs / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(port)], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield Server(name, f"http://127.0.0.1:{port}", process, ready, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - our own server on the loopback
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
