"""The same job with its documents and its root on S3: the same table as on disk."""

from __future__ import annotations

import io
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from support.command import Bench, write_documents
from support.results import comparable

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.mark.parametrize("server", ["moto_url", "ministack_url"])
def test_a_job_on_s3_gives_the_table_that_it_gives_on_disk(
    tmp_path: Path, request: pytest.FixtureRequest, server: str
) -> None:
    url: str = request.getfixturevalue(server)
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    bucket = f"parity-{server.replace('_', '-')}"
    client.create_bucket(Bucket=bucket)
    on_disk = Bench(tmp_path / "disk")
    write_documents(on_disk.folder / "documents", 25)
    for path in (on_disk.folder / "documents").iterdir():
        client.put_object(Bucket=bucket, Key=f"documents/{path.name}", Body=path.read_bytes())
    on_s3 = Bench(
        tmp_path / "s3",
        root=f"s3://{bucket}/out",
        uri=f"s3://{bucket}/documents/*.txt",
        environ={**CREDENTIALS, "AWS_ENDPOINT_URL": url},
    )
    assert on_disk.run().returncode == 0
    ended = on_s3.run()
    assert ended.returncode == 0, ended.stderr

    key = "out/tables/results/job=tides/window=all/results.parquet"
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()

    there, here = pq.read_table(io.BytesIO(body)).to_pylist(), on_disk.results().to_pylist()
    assert len(there) == 50
    assert comparable(there) == comparable(here)
    assert on_s3.run().returncode == 3
