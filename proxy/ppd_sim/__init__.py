"""Simulated engines for tests and the demo: they speak vLLM's HTTP, move KV by every handoff, and fail as told.

Stands on `ppd_wire` and `ppd_core`; of the proxy it knows nothing.
"""
