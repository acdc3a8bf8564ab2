"""What looks inside a model: forward passes without sampling, threshold or judge.

decision   the decision position: the model's own odds of refusing, and the auxiliary head's
states     hidden states of every layer where a response begins
probes     what those states know: linear probes, directions, a plane
views      what was seen inside a run, as it is stored in its folder
forward    prompts in padded batches
"""
