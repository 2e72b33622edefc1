"""HTTP: the server process, its connections, security checks, routes and their OpenAPI description."""
