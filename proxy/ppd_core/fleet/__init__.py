"""The engines: addresses, states, loads, and what is known of each.

Is told what happened and asks nobody. Which of them serves a request is `policy`'s to say.
"""
