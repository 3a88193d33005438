"""``python -m shardrt``: the command line."""

from shardrt.cli import main

if __name__ == "__main__":
    main()
