"""What a batch was answered, as the engine would read it."""

from __future__ import annotations

from lowtide.protocols import Backend
from lowtide.records import Answer


def answers_in(backend: Backend, batch_id: str) -> list[Answer]:
    """Each line's answer, in the order of the output; every line has to be one."""
    found = []
    for output in backend.outputs(batch_id):
        for line in b"".join(output.chunks).splitlines():
            answer = backend.parse(line)
            assert answer is not None
            found.append(answer)
    return found
