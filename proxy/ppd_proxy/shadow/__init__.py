"""The accuracy check of live traffic: samples, baselines that score them, verdicts, and the journal.

Never holds up a client. Numbers are `ppd_accuracy`'s; what follows from a verdict is `ppd_core.policy.guard`'s.
"""
