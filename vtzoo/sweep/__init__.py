"""Recipes trained with several seeds each, in processes of their own, and compared: `vtzoo sweep`."""

from vtzoo.sweep.local import Options as Options
from vtzoo.sweep.schedule import sweep as sweep
from vtzoo.sweep.summary import Report as Report
from vtzoo.sweep.summary import render as render
