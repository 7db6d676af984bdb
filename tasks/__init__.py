"""Prefect tasks: thin wrappers around one step of the engine each."""
