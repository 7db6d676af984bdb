"""A whole stack on one machine: what `lowtide infra show compose` prints."""
