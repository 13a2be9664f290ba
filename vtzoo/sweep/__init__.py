"""Recipes trained with several seeds each, in processes of their own, and compared: `vtzoo sweep`."""

from .local import Options as Options
from .schedule import sweep as sweep
from .summary import Report as Report
from .summary import render as render
