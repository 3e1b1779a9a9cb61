"""The proxy (`ppd-proxy`): it takes clients' requests, carries them to engines, and watches the answers.

The rooms here do IO and stand in layers (docs/architecture.md); what is decided is decided in `ppd_core`.
"""
