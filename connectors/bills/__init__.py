"""Bills of providers, as their exports hold them, read line by line."""
