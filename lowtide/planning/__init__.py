"""What a run would do and cost: the documents looked through, the work estimated, and a backend chosen."""
