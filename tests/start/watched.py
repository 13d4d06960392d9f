"""The server, run as `watched.py FILE`: FILE tells, a line each, what it imports and with whom it connects.

The program is the real one; Python itself reports through its audit hook.
"""

import sys

_FILE = open(sys.argv.pop(1), "w", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123 - to the end of the process


def _tell(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import":
        _FILE.write(f"import {arguments[0]}\n")
    elif event in ("socket.connect", "socket.bind"):
        address = arguments[1]
        _FILE.write(f"{event} {address[1] if isinstance(address, tuple) else address!r}\n")
    elif event in ("socket.getaddrinfo", "sqlite3.connect"):
        _FILE.write(f"{event} {arguments[0]}\n")


sys.addaudithook(_tell)

from clore_mcp.cli.main import main  # noqa: E402 - what it imports is to be told

sys.exit(main())
