"""`clore-mcp demo`: a guided tour. A real MCP client drives the real server over stdio.

It sees what any client sees; the market is simulated.
"""
