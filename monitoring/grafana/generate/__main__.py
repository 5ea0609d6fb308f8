"""Write the dashboards."""

from monitoring.grafana.generate import DASHBOARDS, dashboards

DASHBOARDS.mkdir(exist_ok=True)
for name, text in dashboards().items():
    (DASHBOARDS / name).write_text(text, encoding="utf-8")
