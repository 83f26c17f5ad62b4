"""`python -m registry` is the console script `registry`."""

from registry.cli.main import main

if __name__ == "__main__":
    main()
