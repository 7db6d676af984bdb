"""Prefect flows: compositions of tasks that people and schedules start."""
