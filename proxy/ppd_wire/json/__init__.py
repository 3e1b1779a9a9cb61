"""How JSON of others is read: in steps that leave the loop free, with its bounds, and without what is no number.

Knows no field's name.
"""
