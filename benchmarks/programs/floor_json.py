"""The least that can answer: the standard library, a loop, one tool written out."""

from __future__ import annotations

import json
import sys

SCHEMA = {"type": "object", "properties": {}}
RESULTS = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "floor", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "nothing", "description": "Nothing.", "inputSchema": SCHEMA}]},
}

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": RESULTS[message["method"]]}), flush=True)
