"""Where a request goes and why, and what the guard does when answers go wrong.

A pure function of the fleet's view, loads, history and mode. Carrying it out is `ppd_proxy`'s.
"""
