"""The same job with its documents and its root on Azure Blob Storage: the same table as on disk."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
from azure.storage.blob import BlobServiceClient
from servers import azurite as blob_service
from support.command import Bench, write_documents
from support.results import comparable


def test_a_job_on_blob_storage_gives_the_table_that_it_gives_on_disk(tmp_path: Path, azurite: str) -> None:
    service = BlobServiceClient.from_connection_string(blob_service.connection_string(azurite))
    container = service.create_container("parity")
    on_disk = Bench(tmp_path / "disk")
    write_documents(on_disk.folder / "documents", 25)
    for path in (on_disk.folder / "documents").iterdir():
        container.upload_blob(f"documents/{path.name}", path.read_bytes())
    on_blob = Bench(
        tmp_path / "blob",
        root=f"abfss://parity@{blob_service.ACCOUNT}.dfs.core.windows.net/out",
        uri="abfs://parity/documents/*.txt",
        environ=blob_service.environ(azurite),
    )
    assert on_disk.run().returncode == 0
    ended = on_blob.run()
    assert ended.returncode == 0, ended.stderr

    body = container.download_blob("out/tables/results/job=tides/window=all/results.parquet").readall()
    there, here = pq.read_table(io.BytesIO(body)).to_pylist(), on_disk.results().to_pylist()
    assert len(there) == 50
    assert comparable(there) == comparable(here)
    uri = f"abfs://parity@{blob_service.ACCOUNT}.dfs.core.windows.net/documents/doc-0000.txt"
    assert uri in {row["document_uri"] for row in there}
    assert on_blob.run().returncode == 3
