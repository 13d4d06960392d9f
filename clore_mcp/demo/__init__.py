"""`clore-mcp demo`: a guided tour in which a real MCP client drives the real server over stdio.

The client sees what any client sees. Only the market is simulated.
"""
