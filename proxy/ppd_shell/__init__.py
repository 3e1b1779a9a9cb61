"""The little IO that all programs need: settings from files, environment and flags, the HTTP session, background tasks.

Knows no subject: no engine, no request.
"""
