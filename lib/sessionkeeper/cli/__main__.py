"""`python -m sessionkeeper.cli`."""

from sessionkeeper.cli import run

if __name__ == "__main__":
    run()
