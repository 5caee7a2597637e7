from .folder import export_run as export_run
from .labels import LabelledImage as LabelledImage
from .labels import Labels as Labels
from .labels import labels_of_run as labels_of_run
