"""Simulated engines for tests and the demo: they speak vLLM's HTTP, move KV by every handoff, and fail as told.

Stands on `ppd_wire` and `ppd_shell`; of the proxy and of what it decides it knows nothing.
"""
