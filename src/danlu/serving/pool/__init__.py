"""Worker processes as the HTTP process sees them, and which requests they are given.

pool            Pool: gives requests to workers, replaces workers, swaps models
served_model    ServedModel and PendingRequest: what the pool knows of a model and of a request
admission       whether one more request may wait, by the time it would wait
process         one worker process: started, sent messages, heard, killed
snapshot        copies of the model folders, so that a new worker opens the same bytes
request_counts  what is counted of a model for /metrics
"""
