from .comparison import compare_runs as compare_runs
from .grid import evaluate_detections as evaluate_detections
from .grid import evaluate_run as evaluate_run
from .tuning import tune as tune
