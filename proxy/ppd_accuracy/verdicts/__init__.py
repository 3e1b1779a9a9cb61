"""What the numbers mean: the noise of a healthy engine, verdicts, their evidence, what to try next.

Stands on `answers` and `statistics`.
"""
