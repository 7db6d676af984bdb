from __future__ import annotations

from pathlib import Path

import orjson
import psutil
import pytest
from emulators.desk import Desk, converse_body, new_desk
from servers.emulators import Emulator, emulators

RECORDS = 20_000
MIB = 1 << 20


def process_of(emulator: Emulator) -> psutil.Process:
    port = emulator.url.rsplit(":", 1)[1]
    return next(child for child in psutil.Process().children() if port in child.cmdline())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records(moto_url: str, tmp_path: Path):
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        for number in range(RECORDS):
            body = converse_body(f"{number} " + "The ship left Malta on Monday with grain. " * 47)
            file.write(orjson.dumps({"recordId": f"r{number}", "modelInput": body}) + b"\n")
    size = path.stat().st_size
    assert size > 38 * MIB
    with emulators(s3_url=moto_url) as emulator:
        desk: Desk = new_desk(emulator, moto_url)
        desk.run()
        before = process_of(emulator).memory_info().rss
        desk.s3.upload_file(str(path), desk.bucket, "in/many.jsonl")
        arn = desk.create(f"s3://{desk.bucket}/in/many.jsonl")
        peak = before
        while desk.get(arn)["status"] not in {"Completed", "Failed"}:
            peak = max(peak, process_of(emulator).memory_info().rss)
        assert desk.get(arn)["successRecordCount"] == RECORDS
        assert emulator.bill()["records"] == RECORDS + 100
        assert peak - before < 36 * MIB
