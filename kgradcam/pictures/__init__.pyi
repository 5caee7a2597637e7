from .charts import draw_charts as draw_charts
from .drawing import draw_explanations as draw_explanations
from .drawing import draw_gallery as draw_gallery
from .drawing import overlay as overlay
from .figures import save as save
from .report import build_report as build_report
from .run_gallery import visualize_run as visualize_run
