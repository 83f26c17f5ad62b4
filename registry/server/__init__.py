"""The HTTP server under the application: an uvicorn protocol with two extensions."""
