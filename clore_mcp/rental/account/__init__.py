"""The account as Clore shows it: its orders, wallets, spending and clock, and which account a key opens."""
