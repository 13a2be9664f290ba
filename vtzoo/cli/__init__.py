"""The command `vtzoo`: each command parses, calls one function and prints. Results go to stdout, all else to stderr."""

from vtzoo.cli.application import app as app
from vtzoo.cli.application import main as main
from vtzoo.cli.options import DEFAULT_MODEL as DEFAULT_MODEL
