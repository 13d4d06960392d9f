"""`python -m clore_mcp` is `clore-mcp`."""

import sys

from clore_mcp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
