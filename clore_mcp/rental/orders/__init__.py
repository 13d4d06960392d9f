"""Running orders: how they are shown and reached, what ends them, cancels with proof, and the freeze of all
spending."""
