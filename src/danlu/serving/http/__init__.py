"""HTTP: connections, who may ask, the routes and what describes them.

app                the routes; the place to add one
secured_app        stands before every route: token, host names, size of bodies, turns
security           the token of a server
prediction_routes  POST .../predict
fast_path          the same and the probes without a task, on the connection itself
openai_api         texts in the form of OpenAI's interface
openapi            the description of the served models at /openapi.json
metrics            /metrics, for Prometheus
responses          answers and refusals, as ASGI messages and as bytes
request_body       the body of a request: bounded, counted, read in turns
turns              work that waits in line for the event loop
request_headers    the headers that matter of a request
connection         a connection with bounds on headers and slow clients
http_server        uvicorn with these connections
"""
