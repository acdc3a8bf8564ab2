"""Methods to train or to prefill with, in words, without a model or a token.

method     what a method declares
targets    what queries are answered with: refusals, the model's own responses, a thought alone
registry   all methods by name, collected from the `METHODS` of every module in this package
variants   PreSafe and its variants
controls   PreSafe with an uninformative signal, or without the gradient of the head
baselines  next-token loss alone: SFT, DirectRefusal, SafePath, SafeChain, STAR-1, UnsafeChain
prefills   no training: ZeroThink, LessThink, SafePath zero-shot
safekey, r2d, thinksafe   one method each, with its own targets

To add a method, add a `Method` to the `METHODS` of a module (a new one if it has its own targets), and a test.
"""
