"""A worker process: it opens one model and answers the requests that the HTTP process sends it.

main                 the process: imports, opens the model, works until the HTTP process is gone
channel              its end of the socket, and its signs of life
handler              Handler: how requests become answers, of whatever kind of model
prediction_handler   the Handler of a model that answers rows
text_handler         the Handler of a model that writes text
batching             which rows of which requests are answered together
parse_body           the body of a request to rows
decode_values        rows to the columns that a model takes
models               opens an artifact (torch) or an export (without torch)
"""
