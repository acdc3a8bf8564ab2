"""The one home of statistics: pure functions of numbers, each with its formula and its source.

intervals   95 % intervals: Wilson's, of clustered answers, Newcombe's, Student's over seeds
bootstrap   95 % intervals by resampling: of a mean, a difference, a ranking, any statistic
comparison  two systems on the same prompts: paired difference, p-value, detectable difference; Holm's correction
repeated    several answers to one prompt: Safe@k, ConsSafe@k, pass@k, maj@k
auroc       how well scores separate two classes
"""
