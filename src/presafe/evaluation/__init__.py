"""Stage 4: systems on held-out prompts.

suites       published benchmarks from local files in their publishers' columns
tasks        every suite as an Inspect task
answers      what one system answered, suite by suite: to rows, and to what is compared
metrics      verdicts to rates with n and a 95 % interval; AUROC
differences  paired differences between systems
places       where in a response the refusal happens
across_runs  a study's runs together: means over seeds, and every condition against the baseline
"""
