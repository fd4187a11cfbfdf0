"""Statistics: the one aggregation, intervals, paired comparison."""
