"""What the two gates share: the plug-in inside vLLM, and the front before any other server (`presafe serve`).

The plug-in must not need this package where vLLM runs. So its package holds these files, too: its folder `gating` is a
link to this one. They import one another by relative names, and nothing else of either package.

gate_file   the file that `presafe gate calibrate` writes, and the files that it names
outcome     what is done with a request, from the probabilities that were read
exchange    bodies: the prompts of a request, and the answers that replace a model's
asgi        read a request and write a whole response
ledger      count decisions, write the audit, and word what a client sees
metrics     the counters, as Prometheus reads them
audit       one line per request in a file
"""
