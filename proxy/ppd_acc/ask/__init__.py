"""How engines are asked: access, retries, streams and their times, the cache of answers, health, what an endpoint is.

Compares nothing.
"""
