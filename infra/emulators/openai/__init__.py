"""OpenAI and Azure OpenAI: files, batches, chat completions and responses."""
