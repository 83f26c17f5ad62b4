"""Go's `text/template` language: reading it into a tree.

Models of the Ollama world carry their prompt format as such a template. `parser.parse` makes a
`tree.Templates` of the text; `core/template.py` draws conclusions from it.
"""
