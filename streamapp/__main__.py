"""``python -m streamapp`` is the command ``streamapp``."""

from streamapp.cli import main

if __name__ == "__main__":
    main()
