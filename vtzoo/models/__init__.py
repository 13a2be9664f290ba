"""The zoo's visual transformers, and any other timm architecture; importing the package registers ours with timm."""

from vtzoo.models.factory import DESCRIBING as DESCRIBING
from vtzoo.models.factory import MODELS as MODELS
from vtzoo.models.factory import at_size as at_size
from vtzoo.models.factory import build as build
from vtzoo.models.factory import create as create
from vtzoo.models.factory import features_and_grids as features_and_grids
from vtzoo.models.factory import grids as grids
from vtzoo.models.factory import localizable as localizable
from vtzoo.models.factory import parameter_count as parameter_count
from vtzoo.models.factory import pick_device as pick_device
from vtzoo.models.factory import sized as sized
