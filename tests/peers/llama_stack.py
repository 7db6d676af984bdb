"""openai-batch against llama-stack: llama_stack.py FOLDER, the folder being its environment (infra/dev/llama_stack.sh).

It checks the input file line by line, writes each response's body as JSON inside a string, and names models after their
provider.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# First, since tests/ holds a folder of the same name.
import lowtide  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers.emulators import emulators
from servers.process import serving
from support.openai_support import answers_of, ended, openai_backend, outputs_of, raw_shard, request_of, shard_of

MODEL = "openai/gpt-4.1-mini"
CONFIG = """
version: 2
distro_name: lowtide
apis: [batches, files, inference]
providers:
  inference:
  - {{provider_id: openai, provider_type: "remote::openai", config: {{api_key: sk-x, base_url: "{chat}"}}}}
  files:
  - provider_id: files
    provider_type: inline::localfs
    config: {{storage_dir: "{folder}/files", metadata_store: {{table_name: files, backend: sql_default}}}}
  batches:
  - provider_id: reference
    provider_type: inline::reference
    config: {{kvstore: {{namespace: batches, backend: kv_default}}}}
storage:
  backends:
    kv_default: {{type: kv_sqlite, db_path: "{folder}/kv.db"}}
    sql_default: {{type: sql_sqlite, db_path: "{folder}/sql.db"}}
  stores:
    metadata: {{namespace: registry, backend: kv_default}}
    inference: {{table_name: inference, backend: sql_default, max_write_queue_size: 1000, num_writers: 1}}
    conversations: {{table_name: conversations, backend: sql_default}}
    prompts: {{namespace: prompts, backend: kv_default}}
    connectors: {{namespace: connectors, backend: kv_default}}
registered_resources:
  models:
  - {{model_id: gpt-4.1-mini, provider_id: openai, provider_model_id: gpt-4.1-mini, model_type: llm}}
"""


@contextmanager
def llama_stack(place: Path, chat: str) -> Iterator[str]:
    """The address of a server that asks `chat` for its answers."""
    with tempfile.TemporaryDirectory(prefix="llama-stack-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(CONFIG.format(chat=chat, folder=folder))
        with serving(
            lambda port: [str(place / "bin" / "llama"), "stack", "run", str(config), "--port", str(port)],
            ready="/v1/health",
            environ=lambda port: {"OTEL_SDK_DISABLED": "true", "LLAMA_STACK_LOGGING": "all=error"},
        ) as url:
            yield url


def goes_all_the_way(url: str) -> None:
    """Twenty requests, an answer to each, and the files are gone afterwards."""
    backend = openai_backend(url, model=MODEL)
    requests = [request_of(at, f"Document {at}.") for at in range(20)]
    batch_id = backend.submit(shard_of(backend, requests), "t1")
    assert list(backend.find("t1")) == [batch_id]
    assert not backend.find("t2")
    status = ended(backend, batch_id)
    assert (status.outcome, status.charged) == ("completed", 20), status
    answers = answers_of(backend, batch_id)
    assert answers.keys() == {request.record_id for request in requests}
    assert all(answer.status == "ok" and answer.input_tokens and answer.output_tokens for answer in answers.values())
    backend.cancel(batch_id)
    backend.discard(batch_id)
    backend.discard(batch_id)


def takes_no_bad_file(url: str) -> None:
    """What must never be sent fails in validation, by the codes that are documented."""
    good = openai_backend(url, model=MODEL)
    line = good.encode(request_of(1))
    other = openai_backend(url, model="no-such-model").encode(request_of(2))
    for lines, code in (([line, line[:-5]], "invalid_json_line"), ([line, other], "model_not_found")):
        status = ended(good, good.submit(raw_shard(lines), f"bad-{code}"))
        assert (status.outcome, status.fault) == ("failed", "fatal"), status
        assert code in status.reason, status
        assert status.charged == 0, status


def rejects_rows_one_by_one(url: str, poison: str) -> None:
    """A row that the chat server refuses is an error of its own."""
    backend = openai_backend(url, model=MODEL)
    requests = [request_of(1, "A good document."), request_of(2, poison)]
    batch_id = backend.submit(shard_of(backend, requests), "rows")
    status = ended(backend, batch_id)
    answers = answers_of(backend, batch_id)
    assert (status.outcome, len(answers)) == ("completed", 2), status
    assert [answers[request.record_id].status for request in requests] == ["ok", "error"], outputs_of(backend, batch_id)


def main(place: Path) -> None:
    """Run every check, and say so."""
    with emulators(speed=20) as emulator, llama_stack(place, f"{emulator.url}/v1") as url:
        goes_all_the_way(url)
        takes_no_bad_file(url)
        emulator.faults([{"on": "chat", "do": "poison", "times": "forever", "match": {"text": "POISON"}}])
        rejects_rows_one_by_one(url, "POISON")
        missing = [finding for finding in openai_backend(url, model=MODEL).examine() if not finding.ok]
        assert not missing, missing
    print("llama-stack: a whole batch, two bad files, a rejected row and the look beforehand are as expected")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
