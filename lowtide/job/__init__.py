"""The job file: read, checked, and typed."""

from __future__ import annotations

from lowtide.job.backends import BackendSpec
from lowtide.job.load import load_job
from lowtide.job.model import Job, OperationSpec
from lowtide.job.sample import SAMPLE
from lowtide.job.schema import job_schema

__all__ = ["SAMPLE", "BackendSpec", "Job", "OperationSpec", "job_schema", "load_job"]
