"""The account as Clore shows it: its orders, wallets and clock, and which account a key opens."""
