"""What there is to train or to prefill: one method a file, in words, without a model or a token.

method     what a method says of itself
targets    what queries are answered with: refusals, the model's own words, a thought alone
registry   every module beside it that holds a `METHOD`; its name is the method's

Adding a method is adding a file here and a test. The stages read from it what to do.
"""
