"""What engines and clients say: requests, answers, events, errors, metric pages. Pure.

vLLM's and OpenAI's field names stand here; besides, handoffs have their own keys and simulated engines speak the same
words. Knows no engine, no conversation and no decision: those are `ppd_core`'s.
"""
