"""How each endpoint's answers stream: chat and completions, Responses, Messages.

Says which events carry content, an error or the end, and passes the rest on. Whole answers are `answers`'.
"""
