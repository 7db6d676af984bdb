"""Base job templates of Prefect work pools: what `lowtide infra show prefect` prints."""
