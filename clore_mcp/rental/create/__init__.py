"""One rental, in the order in which it happens: quote, order, send, settle, adopt."""
