"""Where results are kept for readers: one module for each table format."""
