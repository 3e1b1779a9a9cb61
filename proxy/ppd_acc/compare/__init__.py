"""Answers of two engines as samples: aligned, judged against the noise, pooled.

Asks through `ask`, counts with `ppd_accuracy`.
"""
