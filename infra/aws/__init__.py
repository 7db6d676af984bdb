"""CloudFormation templates: what `lowtide infra show aws` prints."""
