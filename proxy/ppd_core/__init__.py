"""What is decided about a request: which engines there are, what they hold, where a turn goes, how KV moves. Pure.

Time, chance and snapshots come in, decisions go out as values. Bytes are `ppd_wire`'s, sockets the programs'.
"""
