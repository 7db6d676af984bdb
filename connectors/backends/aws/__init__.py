"""What backends on AWS share: the account, and what the errors of AWS mean."""
