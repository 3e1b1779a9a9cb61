"""Simulated vLLM engines, for tests, the demo and for measuring the proxy itself.

They speak vLLM's HTTP, handoff parameters and metric names, and their answers are hashes of the prompt. Nothing
measured on them is a result about vLLM.
"""
