"""What every part of the server shares: its options, its refusals, messages between its processes.

settings       the options of `danlu serve`
refusals       the HTTP status and the words with which a request is refused
messages       what the HTTP process and a worker process send each other
model_folder   which folder a path means: an artifact or an export
"""
