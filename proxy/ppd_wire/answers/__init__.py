"""What an engine answered: text, ids, logprobs, tool calls, what its errors mean, and what is taken out of an answer.

Knows one answer's bytes only. Streams as they pass are `dialects`', what was asked is `requests`'.
"""
