"""What every workload shares: servers, load generators, counters, figures and reports."""
