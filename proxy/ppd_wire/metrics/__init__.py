"""vLLM's metric pages: their text, the names of the series that matter, and those of speculative decoding.

One page, no history: what two pages say is `ppd_core.fleet`'s.
"""
