"""Worker processes as the server sees them: started, sent requests, replaced when they die; admission of requests."""
