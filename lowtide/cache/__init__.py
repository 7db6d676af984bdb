"""Answers that were bought before, by what was asked: nothing is bought twice, across runs and jobs."""
