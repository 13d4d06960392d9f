"""Watches: an approval for later, the servers that fit it, and its rentals."""
