"""What the bundle's host starts: clore-mcp on stdio, with what the person filled in."""

import os
import sys

from clore_mcp.cli.main import main

if __name__ == "__main__":
    # Some hosts leave the placeholder of a field that was left empty. Only the key has no default of its own; a cap
    # that nobody filled in stops the start instead, as a limit must not be lost.
    if os.environ.get("CLORE_API_KEY", "").startswith("${user_config."):
        del os.environ["CLORE_API_KEY"]
    sys.exit(main(["--sandbox"] if "sandbox=true" in sys.argv[1:] else []))
