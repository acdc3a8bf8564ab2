"""How QwenThink is made and measured: a chat model, tuned to reason and to nothing else.

rows    the rows that it learns, in words, and what may not stand in them
words   the base's own plans and answers
train   one command: words, rows, training, adapter
gate    one command: is there a gap, and can the model still reason?
"""
