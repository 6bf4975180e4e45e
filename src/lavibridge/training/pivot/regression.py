"""The stage that adds a language model: its half reproduces the slots that the first language half fills.

    caption --reference model, frozen--> reference half, frozen --> slots
    caption --new model, frozen-------> new half (learns) -------> slots'      loss = fvu of slots'

The slots have an order, so that they are compared one by one. No vision model is loaded, and each model reads
each caption once.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from pathlib import Path
from torch import Tensor

from lavibridge.alignment.parts.variance import unexplained
from lavibridge.bridge.choices import component
from lavibridge.connectors.parts.whitening import fold_whitening, whitening
from lavibridge.connectors.pivot import LanguageHalf
from lavibridge.core.contracts import Reading, TextFeatures
from lavibridge.core.device import pick_device, set_threads
from lavibridge.core.errors import NotFiniteError
from lavibridge.core.files import whole_folder
from lavibridge.core.lock import hold
from lavibridge.core.log import progress
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.language.base import LanguageModel
from lavibridge.pivot.compose import open_half
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import Learning, config_of, load_half, write_half
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of
from lavibridge.training.alignment.aligner import OPTIMIZER, with_noise
from lavibridge.training.alignment.captions import Captions, alignment_captions
