"""How KV moves from P to D, one module per protocol: the legs' parameters, and what may be retried or cut off.

Knows no request. To add a protocol: a module here, registered in `registry`.
"""
