"""One technology per file: here, and nowhere else, foreign errors become ours."""
