"""Reports: pages, tables and figures from summaries."""
