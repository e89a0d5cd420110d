"""What watches streamer: the table of its figures, Grafana's dashboards, Prometheus' rules."""
