"""Lowtide: batch inference over document collections at the lowest price that a deadline allows."""

__version__ = "0.1.0"
