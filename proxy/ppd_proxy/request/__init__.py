"""One request, from its whole body to its record: read, planned, carried out, answered, remembered, sampled.

`exchange.py` says what happens next, `serving.py` what that means for this request, `driver.py` does it. Knows no
client's socket and no framework: the server hands over a `Call` and a `Client`.
"""
