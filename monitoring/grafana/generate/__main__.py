"""Write the dashboards and the list of their panels."""

from monitoring.grafana.generate import files

for path, text in files().items():
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
