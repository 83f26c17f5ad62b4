"""HTTP: requests into service calls, results and errors into answers."""
