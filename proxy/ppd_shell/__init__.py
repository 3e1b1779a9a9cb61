"""The little IO that all programs need: settings, private SQLite files, the HTTP session, background tasks.

Knows no subject: no engine, no request.
"""
