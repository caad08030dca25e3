"""``python -m fetcher``: the command line."""

from fetcher.cli.main import main

if __name__ == "__main__":
    main()
