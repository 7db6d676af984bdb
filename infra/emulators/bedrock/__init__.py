"""Amazon Bedrock: batch inference jobs, Converse and InvokeModel, and the quotas of a region."""
