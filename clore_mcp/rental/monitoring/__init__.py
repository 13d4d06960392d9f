"""Problems found on running orders, the events they become, and the operator's notify command."""
