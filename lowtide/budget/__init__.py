"""Caps on what may be spent: money is reserved before anything is submitted, and settled after."""
