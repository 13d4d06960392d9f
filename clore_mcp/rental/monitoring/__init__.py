"""Problems found on running orders, and the operator's notify command."""
