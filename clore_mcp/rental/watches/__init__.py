"""Watches: a yes for later, what fits it, and its rentals."""
