"""An evaluation as tables, figure and contact sheets, beside the published figures."""
