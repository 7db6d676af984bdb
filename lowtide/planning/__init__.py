"""What a run would do and cost, and which backend is the cheapest that is done in time."""
