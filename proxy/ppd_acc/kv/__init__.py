"""KV dumps: their files, the check of one pair, and how it is told.

The comparison itself is `ppd_accuracy.kv`'s.
"""
