"""The run page: report.html in a run's folder, one file that needs no other."""
