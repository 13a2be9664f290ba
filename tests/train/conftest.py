"""The fixtures of a tiny recipe and a tiny data set."""

from small_training import _no_curves as _no_curves
from small_training import _own_cache as _own_cache
from small_training import _tiny_row as _tiny_row
from small_training import _traced_once as _traced_once
from small_training import make_split as make_split
from small_training import people as people
from small_training import recipe_text as recipe_text
from small_training import small_cnn as small_cnn
from small_training import start as start
from small_training import tiny as tiny
from small_training import tiny_data as tiny_data
from small_training import tiny_source as tiny_source
from small_training import training_python as training_python
