"""`python -m vtzoo.cards` renders the cards and the README's table; with --check it only names the stale files."""

import sys
from pathlib import Path

from vtzoo.base import files
from vtzoo.cards.stale import published, stale, stale_index, stale_weights
from vtzoo.cards.table import stale_table
from vtzoo.errors import VtzooError
from vtzoo.zoo import resources


def main() -> int:
    """The exit status: 1 if anything remains stale.

    Renders stale files, or only names them with --check, and prints a sentence on everything that rendering cannot fix.
    """
    checking, folder = "--check" in sys.argv[1:], resources.cards_folder()
    try:
        changed = stale(folder) | stale_table(resources.PACKAGE.parent / "README.md")
        changed |= {} if checking else published(folder)
        for path, text in changed.items():
            print(path)
            if not checking:
                files.write(Path(path), text.encode())
        sentences = [*stale_weights().values(), *stale_index(folder)]
    except VtzooError as error:
        changed, sentences = {}, [". ".join(filter(None, (error.message, error.hint)))]
    for sentence in sentences:
        print(sentence)
    return int(bool(sentences) or (checking and bool(changed)))


if __name__ == "__main__":
    sys.exit(main())
