"""Which conversation a request continues, and which engine holds its KV.

Histories as digests, never as text. Where the next turn goes is `policy`'s to say.
"""
