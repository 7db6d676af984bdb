"""Bicep templates: what `lowtide infra show azure` prints."""
