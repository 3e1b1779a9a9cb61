"""What a client asked, field by field, and the bodies that are made of it: for each leg, and for checks.

Knows one request's bytes only. Which engine gets them is decided in `ppd_core.policy`.
"""
