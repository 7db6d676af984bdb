"""The worker's image, and files that start it elsewhere than on AWS: what `lowtide infra show worker` prints."""
