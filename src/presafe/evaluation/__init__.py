"""Stage 4: systems on held-out prompts.

suites      published benchmarks from local files in their publishers' columns
problems    those whose question is put together from several columns
tasks       every suite as an Inspect task
answers     what one system said, suite by suite: to rows, and to what is compared
metrics     verdicts → rates with n and a 95 % interval; AUROC
repeated    several answers to one prompt: Safe@k, pass@k, maj@k
comparison  two systems on the same prompts: paired differences
decision    the decision position in one forward pass: the model's own odds of refusing, and the head's
states      hidden states of every layer where a response begins
inside      what those states know: probes, directions, a plane; and where in a response the refusal happens
forward     prompts in padded batches
"""
