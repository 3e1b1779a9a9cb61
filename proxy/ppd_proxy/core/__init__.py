"""One request as a state machine: its events, its commands, its table, and the record that is left when it is over.
Pure.

Knows no handoff and no socket. The driver (`upstream`) carries commands out.
"""
