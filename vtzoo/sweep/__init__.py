"""Trains recipes with several seeds each, in separate processes, and compares them: `vtzoo sweep`."""

from vtzoo.sweep.schedule import sweep as sweep
from vtzoo.sweep.summary import Report as Report
from vtzoo.sweep.summary import render as render
from vtzoo.sweep.train_process import TrainOptions as TrainOptions
