"""Running orders: how they are shown, waited for, extended, cancelled and ended on time, and the freeze of all
spending."""
