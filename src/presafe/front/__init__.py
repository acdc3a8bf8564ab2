"""A front before a server that takes no plug-in: it asks a classifier, then forwards or refuses (`presafe serve`).

prompts      the token ids of a request as the server renders them, or why they cannot be told
classifier   p of a prompt: from a server's `/classify`, or from a forward pass in this process
forward      send a request on, and its answer back, byte by byte
app          the ASGI application
checks       what is compared before the first request
serve        put it together, and run it until it is told to stop
"""
