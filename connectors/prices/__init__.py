"""From what providers and others publish about prices to entries of our price book."""
