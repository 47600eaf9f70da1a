"""Pages to look at: features, prompts and graphs, in one HTML file or in a notebook."""

from .explore import explore
from .feature_files import export_features
from .feature_page import feature_page
from .graph_page import graph_page
from .page import Page
from .prompt_page import prompt_page

__all__ = ["Page", "explore", "export_features", "feature_page", "graph_page", "prompt_page"]
