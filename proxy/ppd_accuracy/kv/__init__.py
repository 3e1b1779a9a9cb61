"""Two KV caches beside each other: whether they agree up to rounding, and what happened where they do not.

Arrays only; files and printing are `ppd_acc.kv`'s.
"""
