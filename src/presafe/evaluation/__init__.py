"""Stage 4: systems on held-out prompts.

suites      published benchmarks from local files in their publishers' columns
metrics     verdicts → rates with n and a 95 % interval; AUROC
decision    the decision position in one forward pass: the model's own odds of refusing, and the head's
"""
