"""Fault and fuzz harness: damaged and hostile inputs, kills, and servers that misbehave. See `__main__.py`."""
