"""`python -m vtzoo.cards` renders the cards and the README's table; with --check it only names what is stale."""

import sys
from pathlib import Path

from vtzoo.cards.stale import published, stale, stale_index, stale_weights
from vtzoo.cards.table import stale_table
from vtzoo.errors import VtzooError
from vtzoo.zoo import resources


def main() -> int:
    """Write what is stale, or with --check only name it; what rendering cannot mend is said in a sentence.

    Fails where anything is stale in the end.
    """
    checking, folder = "--check" in sys.argv[1:], resources.cards_folder()
    try:
        changed = stale(folder) | stale_table(resources.PACKAGE.parent / "README.md")
        changed |= {} if checking else published(folder)
        for path, text in changed.items():
            print(path)
            if not checking:
                Path(path).write_text(text, encoding="utf-8")
        sentences = [*stale_weights().values(), *stale_index(folder)]
    except VtzooError as error:
        changed, sentences = {}, [". ".join(filter(None, (error.message, error.hint)))]
    for sentence in sentences:
        print(sentence)
    return int(bool(sentences) or (checking and bool(changed)))


if __name__ == "__main__":
    sys.exit(main())
