"""The steps of one rental, in order: quote, order, send, settle, adopt."""
