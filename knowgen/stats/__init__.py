"""Statistics: aggregation under a scoring protocol, intervals, paired comparison, agreement of judges."""
