"""What is asked about a document: a prompt, the shape of the answer, and a version that changes when either does."""

from __future__ import annotations

from lowtide.operations.build import build_operation, build_operations
from lowtide.operations.operation import Invalid, Operation, Output
from lowtide.operations.template import Template

__all__ = ["Invalid", "Operation", "Output", "Template", "build_operation", "build_operations"]
