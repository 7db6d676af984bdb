"""From a job file to everything that a run needs: store, documents, operations, backend and price."""

from __future__ import annotations

from collections.abc import Iterator

from lowtide import windows
from lowtide.connectors.backends import open_backend
from lowtide.connectors.documents import SourceDocuments
from lowtide.connectors.stores import open_store
from lowtide.connectors.stores.check import verify
from lowtide.connectors.stores.source import matching, split_glob
from lowtide.job import Job
from lowtide.operations import build_operations
from lowtide.plan import Work
from lowtide.prices import LOCAL
from lowtide.protocols import Store
from lowtide.records import FileInfo
from lowtide.windows import Window


def assemble(job: Job, window: Window) -> Work:
    """Put the job's parts together. Reads schema files, and checks that the root keeps put-if-absent.

    Raises ConfigError, MissingExtra or UnsafeStore. Lists and reads no document.
    """
    root = open_store(job.output.root)
    verify(root)
    return Work(
        job=job.name,
        window=window,
        operations=build_operations(job),
        backend=open_backend(job.backends[0]),
        documents=_documents(job, window, root),
        root=root,
        price=LOCAL,
        reading=job.source.model_dump(mode="json"),
        fields=tuple(job.source.fields),
        shard_records=job.limits.shard_records,
        attempts=job.limits.attempts,
        poll=job.limits.poll,
        grace=job.limits.grace,
        deadline=job.deadline,
        run_usd=job.budget.run_usd,
        tags=job.output.tags,
    )


def _documents(job: Job, window: Window, root: Store) -> SourceDocuments:
    base, pattern = split_glob(job.source.uri)
    store = open_store(base)
    in_window = windows.file_filter(job.source.window_by, window)
    rows = windows.row_filter(job.source.window_by, window)
    inside_root = f"{root.uri}/"

    def files() -> Iterator[FileInfo]:
        for info in matching(store, pattern):
            if in_window(info) and not info.uri.startswith(inside_root):
                yield info

    return SourceDocuments(
        store,
        files,
        format=job.source.format,
        text=job.source.text,
        id=job.source.id,
        fields=job.source.fields,
        row_filter_field=rows[0] if rows else None,
        row_filter=rows[1] if rows else None,
    )
