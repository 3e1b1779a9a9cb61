"""Two answers beside each other: where they part, how far their logprobs are apart, how long they are.

One pair or one set of pairs; tests over many are `statistics`', what follows from them `verdicts`'.
"""
