from .candidates import Candidates as Candidates
from .candidates import find_candidates as find_candidates
from .refiner import Refiner as Refiner
from .refiner import load_refiner as load_refiner
from .refiner import refine_run as refine_run
from .training import Annotated as Annotated
from .training import collect as collect
from .training import fit as fit
